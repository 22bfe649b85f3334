"""A LLaVA-class model small enough to train in a minute: an image of 16 coloured cells, and a question of two tokens.

Kind 1, ``any q_j``, asks for the colour of cell j: the last token alone says where to look. Kind 2, ``row_r column_c``, asks
for the colour of the cell there: the last token has to learn from the one before it first where to look.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from laconic.fit.losses import answer_loss
from laconic.stream.assemble import assemble
from laconic.stream.contract import TokenMethod

PAD, BOS, IMAGE = 0, 1, 2
CELLS, COLOURS, PATCH = 16, 4, 2
ANY, ASK, ROW, COLUMN, COLOUR = 3, 4, 20, 24, 28
VOCAB = COLOUR + COLOURS


def toy(layers=3, seed=0):
    """A decoder of `layers` x 48 behind one encoder layer; random weights."""
    torch.manual_seed(seed)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=4 * PATCH,
        patch_size=PATCH,
        projection_dim=32,
    )
    text = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=CELLS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    for p in model.parameters():
        if p.ndim == 2:
            nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    return model


def batch(seed, size=64, kinds=(1,)):
    """Inputs, labels [B, T] and the kind of each row's question."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, COLOURS, (size, CELLS), generator=generator)
    asked = torch.randint(0, CELLS, (size,), generator=generator)
    kind = torch.tensor(kinds)[torch.randint(0, len(kinds), (size,), generator=generator)]
    ids = torch.full((size, CELLS + 4), IMAGE)
    ids[:, 0] = BOS
    ids[:, -3] = torch.where(kind == 1, ANY, ROW + asked // 4)
    ids[:, -2] = torch.where(kind == 1, ASK + asked, COLUMN + asked % 4)
    ids[:, -1] = COLOUR + cells.gather(1, asked[:, None])[:, 0]
    palette = torch.eye(COLOURS)[:, :3] * 2 - 0.5
    pixels = palette[cells].view(size, 4, 4, 3).permute(0, 3, 1, 2)
    pixels = pixels.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    labels = torch.full_like(ids, -100)
    labels[:, -1] = ids[:, -1]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return given, labels, kind


def train(model, steps, around, kinds=(1,), lr=3e-3, size=64, start=0):
    """AdamW over `steps` batches; `around(step)` is a context manager that gives the session, or None."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    model.train().requires_grad_(True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20, 2 * (1 - step / steps))
        given, labels, _ = batch(start + step, size, kinds)
        with around(step) as session:
            loss = answer_loss(session, model(**given).logits, labels)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(model, around, kinds=(1,), seed=10_000_000, size=1024):
    """Share of fresh questions that are answered right."""
    given, labels, _ = batch(seed, size, kinds)
    with around(0):
        told = model(**given).logits[:, -2].argmax(-1)
    return float((told == labels[:, -1]).float().mean())


@dataclass(kw_only=True)
class Chance(TokenMethod):
    """`count` visual tokens, drawn anew for every row and pass, go on to `layer`."""

    layer: int = 1
    count: int = 4

    name = "chance"

    def cuts(self, depth):
        return (self.layer,)

    def cut(self, stream):
        at = [stream.images(b) for b in range(len(stream.hidden))]
        return assemble(stream, [rows[torch.randperm(len(rows))[: self.count]].sort().values for rows in at])
