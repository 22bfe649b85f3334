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
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import AttentionInterface, AutoTokenizer, LlavaForConditionalGeneration

from laconic.fit.checkpoint import load_state, save_state
from laconic.tasks.scenes.questions import EVALUATION_SEED
from laconic.tasks.scenes.scenes import PATCH_CLASSES
from laconic.testbed.any_resolution import any_resolution, any_resolution_processor, image_sizes
from laconic.testbed.optimizers import build_optimizers
from laconic.testbed.scene_batch import KIND_NAMES, SCENE_CLASSES, Batch, Batches
from laconic.testbed.vlm_model import build_model, build_processor, build_tokenizer

STAGES: tuple[tuple[str, ...], ...] = (
    (),
    ("existence", "colour"),
    ("existence", "colour", "position", "relation"),
    tuple(KIND_NAMES),
)
"""Kinds of question of each stage; none in the first, which trains the vision tower alone."""
HEADS = "heads.safetensors"
ATTENTION = "testbed_training"


def plain_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention of queries [B, H, n, D] over [B, Hkv, n, D] written out: [B, n, H, D] and no weights.

    In bfloat16 on CPUs it trains three times as fast as torch's flash kernel at a few hundred tokens.
    """
    rows, heads, n, width = query.shape
    groups = key.shape[1]
    scores = (query * scaling).reshape(rows, groups, -1, width) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = (scores.view(rows, groups, -1, n, n) + attention_mask[:, None].to(scores.dtype)).view_as(scores)
    out = scores.softmax(-1, dtype=scores.dtype) @ value
    return out.view(rows, heads, n, width).transpose(1, 2), None


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


class Trainer:
    """Model, heads, optimizers and curriculum state; a resumed run continues exactly from the last checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(args.seed)
        self.state: dict[str, Any] = {"step": 0, "stage": 0, "stage_step": 0, "images": 0, "cpu": 0.0, "ema": {}}
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

    def save(self) -> None:
        """Write model, heads, optimizer and curriculum state into the output folder."""
        self.model.save_pretrained(self.out)
        save_file(self.heads.state_dict(), self.out / HEADS)
        save_state(self.out, self.optimizers, self.state)

    def load(self) -> None:
        """Restore what :meth:`save` wrote."""
        saved = type(self.model).from_pretrained(self.out, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())
        self.heads.load_state_dict(load_file(self.out / HEADS))
        self.state = load_state(self.out, self.optimizers)

    def weights(self) -> dict[str, float]:
        """How often each kind of the stage is asked: more often where more is wrong."""
        ema = self.state["ema"]
        return {kind: 0.1 + 1 - ema.get(kind, (0.0, 0))[0] for kind in STAGES[self.state["stage"]]}

    def rate(self) -> float:
        """Factor on the learning rates: 100 steps of warm-up, 1, and from ``--decay-at`` on a linear fall to zero."""
        step = self.state["step"]
        return max(0.0, min(1.0, (step + 1) / 100, 1 - (step - self.args.decay_at) / self.args.decay_steps))

    def draw(self) -> Batch:
        """The batch of this step: it follows from seed, step and :meth:`weights`."""
        if not self.state["step"] < EVALUATION_SEED:
            raise ValueError(f"step={self.state['step']} would draw seeds for evaluation; stop below {EVALUATION_SEED}")
        rng = random.Random(f"train-{self.args.seed}-{self.state['step']}")
        return self.batches.draw(rng, self.args.rows, self.args.questions, self.weights())

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor | None, float]:
        """Loss, correct answers [Q] (none in the first stage), and the share of patches read correctly."""
        parts, layer = self.model.model, self.model.config.vision_feature_layer
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            where = {"vision_feature_layer": layer, "vision_feature_select_strategy": "default"}
            sizes = {"image_sizes": image_sizes(len(batch.ids))} if self.args.large else {}
            seen = parts.get_image_features(batch.pixels, **where, **sizes)
            summary = parts.vision_tower.post_layernorm(seen.last_hidden_state[:, 0])
            loss, patches = self.heads(seen.hidden_states[layer][:, 1:], summary, batch)
            loss = loss * self.args.help_weight
            if not len(batch.targets):
                return loss, None, patches
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
        return loss, wrong == 0, patches

    def step(self) -> None:
        """One optimizer step; accuracies are folded into the running means."""
        batch = self.draw()
        loss, right, patches = self.losses(batch)
        loss.backward()
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.heads.parameters()], 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * self.rate()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.fold("patches", patches, 1)
        if right is not None:
            for i, kind in enumerate(KIND_NAMES):
                own = right[batch.kinds == i].float()
                if len(own):
                    self.fold(kind, own.mean().item(), len(own))
        self.state["loss"] = round(loss.item(), 3)
        self.state["step"] += 1
        self.state["stage_step"] += 1
        self.state["images"] += len(batch.pixels)

    def fold(self, name: str, value: float, count: int) -> None:
        """Fold the mean of ``count`` answers into a running mean over about the last 1,000 (25 for patches)."""
        mean, seen = self.state["ema"].get(name, (0.0, 0))
        last = 25 if name == "patches" else 1000
        self.state["ema"][name] = (mean + (value - mean) * count / min(last, seen + count), min(last, seen + count))

    def advance(self) -> None:
        """Go to the next stage when all its accuracies pass its gate, or when it has had its share of steps."""
        stage, ema = self.state["stage"], self.state["ema"]
        if stage + 1 == len(STAGES):
            return
        names = STAGES[stage] or ("patches",)
        passed = all(ema.get(name, (0.0, 0))[0] > self.args.gate for name in names)
        if passed or self.state["stage_step"] >= self.args.stage_steps:
            self.state |= {"stage": stage + 1, "stage_step": 0}
            self.log(f"-> stage {stage + 1}: {', '.join(STAGES[stage + 1])}")

    def log(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, flush=True)
        with open(self.out / "train.log", "a") as file:
            file.write(line + "\n")

    def run(self) -> None:
        """Train until the rate has fallen to zero or ``--steps`` are done; a checkpoint every ``--save-seconds``."""
        spent, saved = self.state["cpu"] - time.process_time(), time.monotonic()
        self.log(f"settings {vars(self.args)}")
        while self.rate() > 0 and self.state["step"] < self.args.steps:
            self.step()
            self.advance()
            self.state["cpu"] = spent + time.process_time()
            if self.state["step"] % 50 == 0:
                state = self.state
                ema = " ".join(f"{name}={mean:.3f}" for name, (mean, _) in state["ema"].items())
                speed = state["images"] / state["cpu"]
                self.log(
                    f"step {state['step']} stage {state['stage']} loss {state['loss']} {ema} lr x{self.rate():.2f} "
                    f"{state['cpu'] / 60:.1f} CPU min {speed:.1f} images/s"
                )
            if time.monotonic() - saved > self.args.save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()


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
