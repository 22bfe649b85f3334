"""Trains ``testbed/audio`` on procedural sound, resumable at any step.

    OMP_NUM_THREADS=1 python -m laconic.testbed.train_audio --out runs/audio
    python -m laconic.testbed.train_audio --out runs/audio --resume --decay-at 6000      # continue with other settings

Curriculum: what is heard in each audio token (encoder and projector alone), then transcription, then all kinds of question.
The tokens' loss remains as an auxiliary loss with ``--help-weight``: it asks every projected token for the words of what is
heard in it, through the decoder's own word embeddings, as speech models that are trained on transcripts first have it.
"""

import argparse
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu
from transformers import AttentionInterface, AutoProcessor

from laconic.testbed.audio_model import WIDTH, build_model, build_processor, build_tokenizer
from laconic.testbed.optimizers import build_optimizers
from laconic.testbed.sound_batch import KIND_NAMES, MOST_DIGITS, Batch, Batches
from laconic.testbed.staged import ATTENTION, StagedTraining, plain_attention

SECONDS = (4, 4, 5, 8)
"""Longest clips of each stage."""


class AuxiliaryHeads(nn.Module):
    """The auxiliary loss: which word and which digit of the clip is heard in each audio token; not part of the shipped
    model.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = nn.Linear(width, MOST_DIGITS + 1)

    def forward(self, projected: Tensor, words: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Loss of ``projected`` tokens [N, H] against the embeddings ``words`` [W, H], and the share of sounds read right.

        Most tokens are silent, so those with sound and the others weigh the same.
        """
        there = torch.arange(batch.words.shape[1]) < batch.lengths[:, None]
        said, place = batch.words[there], batch.places[there]
        logits = projected @ words.T
        each = -logits.log_softmax(-1).gather(1, said).mean(1)
        each = each + 0.3 * cross_entropy(self.place(projected), place, reduction="none")
        sound = said[:, 0] != said[:, 1]
        loss = each[sound].mean() + each[~sound].mean()
        found = logits.detach().topk(2, -1).indices.sort(-1).values
        return loss, (found == said.sort(-1).values).all(-1)[sound].float().mean().item()


class Trainer(StagedTraining):
    """Model, heads, optimizer and curriculum of ``testbed/audio``."""

    stages = ((), ("transcription",), tuple(KIND_NAMES), tuple(KIND_NAMES))
    kinds = KIND_NAMES
    help_name = "tokens"
    unit = "clips"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.model: Any = build_model()
        if not args.resume:
            build_processor(build_tokenizer()).save_pretrained(self.out)
        self.batches = Batches(AutoProcessor.from_pretrained(self.out))
        AttentionInterface.register(ATTENTION, plain_attention)
        self.model.set_attn_implementation(ATTENTION)
        self.heads = AuxiliaryHeads(WIDTH)
        parts = self.model.model
        layers = [parts.audio_tower.layers, parts.multi_modal_projector, parts.language_model.layers]
        matrices = [p for part in layers for p in part.parameters() if p.ndim == 2]
        inside = {id(p) for p in matrices}
        learned = [p for part in (self.model, self.heads) for p in part.parameters() if p.requires_grad]
        others = [p for p in learned if id(p) not in inside]
        self.optimizers = build_optimizers(matrices, others, args.muon_lr, args.lr, exact=True)

    def drawn(self, rng: random.Random) -> Batch:
        longest = SECONDS[self.state["stage"]] * rng.uniform(0.5, 1)  # clips of about one length waste little on padding
        return self.batches.draw(rng, self.args.rows, self.args.questions, self.weights(), longest)

    def encode(self, batch: Batch) -> Tensor:
        """Features [N, D] of all audio tokens: what the encoder makes of the padded window, without running the padding."""
        tower = self.model.model.audio_tower
        longest = int(batch.lengths.max())
        frames = batch.features[..., : 4 * longest + 8]  # frames after the last token reach it through both convolutions
        x = gelu(tower.conv2(gelu(tower.conv1(frames)))).mT
        x = x + tower.embed_positions.weight[: x.shape[1]]
        unseen = torch.arange(x.shape[1]) >= batch.inside[:, None]
        mask = torch.zeros(unseen.shape).masked_fill(unseen, -1e4)[:, None, None]
        for layer in tower.layers:
            x = layer(x, mask)
        x = tower.layer_norm(tower.avg_pooler(x.mT).mT)
        return x[:, :longest][torch.arange(longest) < batch.lengths[:, None]]

    def projected(self, batch: Batch) -> Tensor:
        """All audio tokens as they go into the prompt [N, H]."""
        tokens: Tensor = self.model.model.multi_modal_projector(self.encode(batch))
        return tokens

    def answers(self, batch: Batch, projected: Tensor) -> Tensor:
        """Logits of all answer tokens [A, W]."""
        decoder, packed = self.model.model.language_model, batch.packed
        stream = decoder.embed_tokens(packed.ids)
        hidden = decoder(
            inputs_embeds=stream.masked_scatter((packed.ids == self.batches.audio)[..., None], projected),
            attention_mask=torch.zeros(packed.mask.shape).masked_fill(~packed.mask, -1e4),
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        logits: Tensor = self.model.lm_head(hidden.flatten(0, 1)[packed.at])
        return logits

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
        projected, targets = self.projected(batch), batch.packed.targets
        loss, helped = self.heads(projected, self.model.get_input_embeddings().weight, batch)
        loss = loss * self.args.help_weight
        if not len(targets):
            return loss, None, None, helped
        logits = self.answers(batch, projected)
        loss = loss + cross_entropy(logits, targets)
        missed = (logits.argmax(-1) != targets).float()
        wrong = torch.zeros(len(batch.kinds)).index_add_(0, batch.packed.question, missed)
        return loss, wrong == 0, batch.kinds, helped


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = options.add_argument
    add("--out", default="runs/audio", help="folder of checkpoint, optimizer state and log")
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=100_000, help="stop at this step at the latest")
    add("--rows", type=int, default=16, help="clips per step")
    add("--questions", type=int, default=8, help="questions per clip")
    add("--lr", type=float, default=1e-3, help="AdamW: embeddings, convolutions, norms, biases, heads")
    add("--muon-lr", type=float, default=2e-3, help="Muon: the matrices of all layers")
    add("--help-weight", type=float, default=1.0, help="weight of the loss of audio tokens")
    add("--gate", type=float, default=0.9, help="accuracy that ends a stage")
    add("--stage-steps", type=int, default=1500, help="a stage ends after this many steps at the latest")
    add("--decay-at", type=int, default=6000, help="step at which the learning rate begins to fall")
    add("--decay-steps", type=int, default=2000)
    add("--save-seconds", type=float, default=300)
    return options


def main() -> None:
    """Train."""
    args = parser().parse_args()
    torch.set_num_threads(1)
    trainer = Trainer(args)
    if args.resume:
        trainer.load()
    trainer.run()


if __name__ == "__main__":
    main()
