"""Trains ``testbed/video`` on procedural clips, resumable at any step.

    OMP_NUM_THREADS=1 python -m laconic.testbed.train_video --out runs/video
    python -m laconic.testbed.train_video --out runs/video --resume --decay-at 3000      # continue with other settings

It starts from ``testbed/vlm``, whose vision tower stays as it is (``--tower`` trains it, too): what remains to be learned
is to read patches that are averaged, and time. Curriculum: clips of 4 frames, of up to 8, 16, then 32; shorter ones stay
in the mixture. A step has as many frames at every stage.
"""

import argparse
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface, AutoTokenizer, LlavaForConditionalGeneration

from laconic.shipped import model_path
from laconic.tasks.video.clips import FRAMES
from laconic.testbed.clip_batch import KIND_NAMES, Batch, Batches
from laconic.testbed.optimizers import build_optimizers
from laconic.testbed.staged import ATTENTION, StagedTraining, plain_attention
from laconic.testbed.video_model import build_model, build_processor, build_tokenizer


class Trainer(StagedTraining):
    """Model, optimizers and curriculum of ``testbed/video``; it needs no auxiliary heads."""

    stages = tuple(tuple(KIND_NAMES) for _ in FRAMES)
    kinds = KIND_NAMES
    help_name = "length"
    unit = "frames"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        if not args.resume:
            build_processor(build_tokenizer()).save_pretrained(self.out)
        tokenizer = AutoTokenizer.from_pretrained(self.out)
        start = model_path("testbed/vlm")
        old = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
        self.model: Any = build_model(old, AutoTokenizer.from_pretrained(start), tokenizer)
        self.batches = Batches(tokenizer)
        AttentionInterface.register(ATTENTION, plain_attention)
        self.model.set_attn_implementation(ATTENTION)
        self.heads = nn.Module()
        parts = self.model.model
        parts.vision_tower.requires_grad_(args.tower)
        layers = [parts.multi_modal_projector, parts.language_model.layers]
        layers += [parts.vision_tower.encoder] if args.tower else []
        matrices = [p for part in layers for p in part.parameters() if p.ndim == 2]
        inside = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in inside]
        self.optimizers = build_optimizers(matrices, others, args.muon_lr, args.lr, exact=True)

    def drawn(self, rng: random.Random) -> Batch:
        stage = self.state["stage"]
        longest = rng.choice([*FRAMES[:stage], *[FRAMES[stage]] * self.args.longest])
        frames = rng.randint(max(FRAMES[0], longest // 2 + 1), longest)  # every length occurs, so counting places fails
        rows = max(1, self.args.rows // frames)
        return self.batches.draw(rng, rows, self.args.questions, self.weights(), frames)

    def projected(self, batch: Batch) -> Tensor:
        """All visual tokens as they go into the prompt [N, H]."""
        config = self.model.config
        with torch.set_grad_enabled(self.args.tower):
            encoded = self.features(batch.pixels.flatten(0, 1), config.vision_feature_layer)
        parts = self.model.model
        pooled = parts.apply_pooling(parts.multi_modal_projector(encoded))
        pooled = pooled.reshape(len(batch.pixels), -1, pooled.shape[-1])
        end = parts.image_newline.expand(len(pooled), 1, -1)
        return torch.cat([pooled, end], 1).flatten(0, 1)

    def features(self, pixels: Tensor, layer: int) -> Tensor:
        """Patches [F, P, D] of frames [F, 3, S, S] after encoder layer ``layer`` from the end; later ones do not run."""
        tower = self.model.model.vision_tower
        x = tower.pre_layrnorm(tower.embeddings(pixels))
        for block in tower.encoder.layers[: layer + 1]:
            x = block(x, None)
        return x[:, 1:]

    def answers(self, batch: Batch) -> Tensor:
        """Logits of all answer tokens [A, W]."""
        decoder, packed = self.model.model.language_model, batch.packed
        stream = decoder.embed_tokens(packed.ids)
        hidden = decoder(
            inputs_embeds=stream.masked_scatter((packed.ids == self.batches.video)[..., None], self.projected(batch)),
            attention_mask=torch.zeros(packed.mask.shape).masked_fill(~packed.mask, -1e4),
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state
        logits: Tensor = self.model.lm_head(hidden.flatten(0, 1)[packed.at])
        return logits

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
        logits, targets = self.answers(batch), batch.packed.targets
        missed = (logits.argmax(-1) != targets).float()
        wrong = torch.zeros(len(batch.kinds)).index_add_(0, batch.packed.question, missed)
        return cross_entropy(logits, targets), wrong == 0, batch.kinds, float(batch.pixels.shape[1])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = options.add_argument
    add("--out", default="runs/video", help="folder of checkpoint, optimizer state and log")
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=100_000, help="stop at this step at the latest")
    add("--rows", type=int, default=96, help="frames per step, of all clips together")
    add("--questions", type=int, default=8, help="questions per clip")
    add("--lr", type=float, default=1e-3, help="AdamW: embeddings, norms, biases")
    add("--muon-lr", type=float, default=2e-3, help="Muon: the matrices of all layers")
    add("--longest", type=int, default=2, help="how many times as often as each shorter one the longest clips are drawn")
    add("--tower", action="store_true", help="train the vision tower, too")
    add("--gate", type=float, default=0.9, help="accuracy that ends a stage")
    add("--stage-steps", type=int, default=1000, help="a stage ends after this many steps at the latest")
    add("--decay-at", type=int, default=2500, help="step at which the learning rate begins to fall")
    add("--decay-steps", type=int, default=1000)
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
