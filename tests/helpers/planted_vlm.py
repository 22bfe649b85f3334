"""A LLaVA-class model whose weights are set by hand: images hold vectors, heads look at what a test says.

A patch of 8 x 8 pixels holds 32 numbers, which the encoder and the projector hand to the decoder as they are (up to their
common length). The decoder has 64 channels: 0..31 come from images, 32..63 belong to text. Nothing but the heads that a
test sets moves information.
"""

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

IMAGE, BOS, VOCAB, WIDTH, HEAD = 1, 2, 32, 64, 32
FREE = [*range(8, 16), *range(24, 32)]  # channels of a head that RoPE leaves nearly alone


def planted(side: int, layers: int = 2, heads: int = 1, kv_heads: int = 1) -> LlavaForConditionalGeneration:
    """One view of side x side patches; `layers` decoder layers, all of whose matrices are zero."""
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=8,
        num_hidden_layers=1,  # features are those before it
        num_attention_heads=1,
        image_size=8 * side,
        patch_size=8,
        projection_dim=8,
    )
    text = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=8,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=HEAD,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e8},
        pad_token_id=0,
        bos_token_id=BOS,
        eos_token_id=None,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=side * side,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    for name, p in model.named_parameters():
        p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    tower = model.model.vision_tower
    conv = getattr(tower, "vision_model", tower).embeddings.patch_embedding.weight  # [96, 3, 8, 8]
    for number in range(48):
        block, colour = divmod(number, 3)
        row, column = divmod(block, 4)
        conv[number, colour, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 0.25
    conv[48:] = -conv[:48]  # the mean of a feature is zero, so layer norm scales it and no more
    projector, half = model.model.multi_modal_projector, torch.eye(32)
    projector.linear_1.weight[:32, :32], projector.linear_1.weight[32:, :32] = half, -half
    projector.linear_2.weight[:32, :32], projector.linear_2.weight[:32, 32:] = half, -half  # gelu(x) - gelu(-x) = x
    return model


def attends(model: LlavaForConditionalGeneration, layer: int, number: int, asks: int, found: int, gain: float) -> None:
    """In `layer`, tokens with channel `asks` look at tokens with channel `found`, in the head's channel `number`: where both
    have half of their length in these channels, the logit is about 8 * `gain`."""
    attention = model.model.language_model.layers[layer].self_attn
    attention.q_proj.weight[FREE[number], asks] = 1.0
    attention.k_proj.weight[FREE[number], found] = gain


def carries(
    model: LlavaForConditionalGeneration, layer: int, number: int, source: int, goal: int, gain: float = 1.0
) -> None:
    """What is looked at in `layer` brings its channel `source` into channel `goal`."""
    attention = model.model.language_model.layers[layer].self_attn
    attention.v_proj.weight[number, source] = gain
    attention.o_proj.weight[goal, number] = 1.0


def pixels(vectors: Tensor, side: int) -> Tensor:
    """vectors [B, side * side, 32] -> images [B, 3, 8 side, 8 side]."""
    batch = len(vectors)
    full = torch.cat([vectors, vectors.new_zeros(batch, side * side, 16)], -1)
    blocks = full.view(batch, side, side, 4, 4, 3).permute(
        0, 5, 1, 3, 2, 4
    )  # B, colour, patch row, row, patch column, column
    small = blocks.reshape(batch, 3, 4 * side, 4 * side)
    return small.repeat_interleave(2, -1).repeat_interleave(2, -2)


def prompt(vectors: Tensor, side: int, words: list[int] | Tensor) -> dict[str, Tensor]:
    """A batch of images [B, side * side, 32], each followed by the same `words`, or by a row of `words` [B, w]."""
    batch = len(vectors)
    told = torch.as_tensor(words).expand(batch, -1)
    seen = torch.full((batch, side * side), IMAGE)
    ids = torch.cat([torch.full((batch, 1), BOS), seen, told], 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels(vectors, side)}
