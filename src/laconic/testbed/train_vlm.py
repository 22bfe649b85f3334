"""Trains ``testbed/vlm`` on procedural scenes, resumable at any step.

    OMP_NUM_THREADS=1 python -m laconic.testbed.train_vlm --out runs/vlm
    python -m laconic.testbed.train_vlm --out runs/vlm --resume --decay-at 9000      # continue with other settings
    python -m laconic.testbed.train_vlm --out runs/large --large --start runs/vlm --rows 6    # then at any resolution

Curriculum: what lies in each patch (the vision tower alone), then questions about existence and colour, then position and
relation, then comparing, counting and reading. The patches' loss remains as an auxiliary loss with ``--help-weight``; it
also trains the CLS token, which LLaVA never reads but methods that score patches by CLS attention do. Kinds of question that
are answered worse are asked more often. Every step draws fresh scenes, and schedules count steps, so a stopped process loses
nothing.
"""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AttentionInterface, AutoTokenizer, LlavaForConditionalGeneration

from laconic.tasks.scenes.scenes import PATCH_CLASSES
from laconic.testbed.any_resolution import any_resolution, any_resolution_processor, image_sizes
from laconic.testbed.optimizers import build_optimizers
from laconic.testbed.scene_batch import KIND_NAMES, SCENE_CLASSES, Batch, Batches
from laconic.testbed.staged import ATTENTION, HEADS, StagedTraining, plain_attention
from laconic.testbed.vlm_model import build_model, build_processor, build_tokenizer

STAGES: tuple[tuple[str, ...], ...] = (
    (),
    ("existence", "colour"),
    ("existence", "colour", "position", "relation"),
    tuple(KIND_NAMES),
)
"""Kinds of question of each stage; none in the first, which trains the vision tower alone."""


class AuxiliaryHeads(nn.Module):
    """The auxiliary loss: linear readers of every patch's feature and of the CLS token; not part of the shipped model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, sum(PATCH_CLASSES))
        self.scene = nn.Linear(width, SCENE_CLASSES)

    def forward(self, features: Tensor, summary: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Loss of ``features`` [B, V, D] and ``summary`` [B, D], and the share of occupied patches read correctly.

        Most patches hold nothing, so occupied and empty ones weigh the same.
        """
        loss = binary_cross_entropy_with_logits(self.scene(summary).float(), batch.names)
        right: list[Tensor] = []
        logits = self.patch(features).float().flatten(0, 1).split(list(PATCH_CLASSES), -1)
        for rows, labels in zip(logits, batch.patches.flatten(2).unbind(1), strict=True):
            target = labels.flatten()
            each, occupied = cross_entropy(rows, target, reduction="none"), target > 0
            shares = (each[mask].sum() / mask.sum().clamp(min=1) for mask in (occupied, target == 0))
            loss = loss + sum(shares) / len(PATCH_CLASSES)
            right.append((rows.argmax(-1) == target)[occupied])
        return loss, torch.cat(right).float().mean().item()


class Trainer(StagedTraining):
    """Model, heads, optimizers and curriculum of ``testbed/vlm``."""

    stages = STAGES
    kinds = KIND_NAMES
    help_name = "patches"
    unit = "images"

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        model = build_model()
        if args.start:
            model = LlavaForConditionalGeneration.from_pretrained(args.start, dtype=torch.float32)
            self.state["stage"] = len(STAGES) - 1
        self.model: Any = any_resolution(model) if args.large else model
        if not args.resume:
            tokenizer = AutoTokenizer.from_pretrained(args.start) if args.start else build_tokenizer()
            (any_resolution_processor if args.large else build_processor)(tokenizer).save_pretrained(self.out)
        self.batches = Batches(AutoTokenizer.from_pretrained(self.out), args.large)
        AttentionInterface.register(ATTENTION, plain_attention)
        self.model.set_attn_implementation(ATTENTION)
        self.heads = AuxiliaryHeads(self.model.model.vision_tower.post_layernorm.weight.numel())
        if args.start:
            self.heads.load_state_dict(load_file(Path(args.start) / HEADS))
        layers = [self.model.model.vision_tower.encoder, self.model.model.multi_modal_projector]
        layers.append(self.model.model.language_model.layers)
        matrices = [p for part in layers for p in part.parameters() if p.ndim == 2]
        inside = {id(p) for p in matrices}
        others = [p for part in (self.model, self.heads) for p in part.parameters() if id(p) not in inside]
        self.optimizers = build_optimizers(matrices, others, args.muon_lr, args.lr)

    def drawn(self, rng: random.Random) -> Batch:
        return self.batches.draw(rng, self.args.rows, self.args.questions, self.weights())

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
        parts, layer = self.model.model, self.model.config.vision_feature_layer
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            where = {"vision_feature_layer": layer, "vision_feature_select_strategy": "default"}
            sizes = {"image_sizes": image_sizes(len(batch.ids))} if self.args.large else {}
            seen = parts.get_image_features(batch.pixels, **where, **sizes)
            summary = parts.vision_tower.post_layernorm(seen.last_hidden_state[:, 0])
            loss, patches = self.heads(seen.hidden_states[layer][:, 1:], summary, batch)
            loss = loss * self.args.help_weight
            if not len(batch.targets):
                return loss, None, None, patches
            words = parts.language_model.embed_tokens(batch.ids)
            visual = torch.stack(list(seen.pooler_output)).to(words.dtype)
            unseen = torch.zeros_like(batch.mask, dtype=torch.float32).masked_fill(~batch.mask, -1e4)
            stream = torch.cat([words[:, :2], visual, words[:, 2:]], 1)
            hidden = parts.language_model(
                inputs_embeds=stream, attention_mask=unseen, position_ids=batch.positions, use_cache=False
            ).last_hidden_state
            logits = self.model.lm_head(hidden.flatten(0, 1)[batch.at]).float()
        loss = loss + cross_entropy(logits, batch.targets)
        wrong = torch.zeros(len(batch.kinds)).index_add_(0, batch.question, (logits.argmax(-1) != batch.targets).float())
        return loss, wrong == 0, batch.kinds, patches


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = options.add_argument
    add("--out", default="runs/vlm", help="folder of checkpoint, optimizer state and log")
    add("--resume", action="store_true", help="continue from the checkpoint in --out")
    add("--start", metavar="DIR", help="begin in the last stage with the model of another run")
    add("--large", action="store_true", help="any resolution: images of 192 x 192, LLaVA-NeXT's class")
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=100_000, help="stop at this step at the latest")
    add("--rows", type=int, default=32, help="images per step")
    add("--questions", type=int, default=12, help="questions per image")
    add("--lr", type=float, default=1e-3, help="AdamW: embeddings, norms, biases, heads")
    add("--muon-lr", type=float, default=2e-3, help="Muon: the matrices of all layers")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    add("--help-weight", type=float, default=1.0, help="weight of the loss of patches and CLS token")
    add("--gate", type=float, default=0.9, help="accuracy that ends a stage")
    add("--stage-steps", type=int, default=1500, help="a stage ends after this many steps at the latest")
    add("--decay-at", type=int, default=8000, help="step at which the learning rate begins to fall")
    add("--decay-steps", type=int, default=3000)
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
