"""What trainings with stages of questions share: state, running means, learning rate, stages, log, checkpoints in time."""

import argparse
import random
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from laconic.fit.checkpoint import load_state, save_state
from laconic.tasks.task import EVALUATION_SEED

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


class StagedTraining:
    """A training of a model and its auxiliary ``heads`` through ``stages``.

    A resumed run continues from the last checkpoint. A stage ends when the running means of its kinds of question pass
    ``--gate``, or of ``help_name`` in a stage without questions. Kinds that are answered worse are asked more often. Every
    step draws fresh samples from its own number, and schedules count steps, so a stopped process loses nothing. A subclass
    brings its parts, `drawn` and `losses`.
    """

    stages: ClassVar[tuple[tuple[str, ...], ...]]
    kinds: ClassVar[list[str]]
    help_name: ClassVar[str]
    unit: ClassVar[str]
    model: Any
    heads: nn.Module
    optimizers: list[torch.optim.Optimizer]

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(args.seed)
        self.state: dict[str, Any] = {"step": 0, "stage": 0, "stage_step": 0, self.unit: 0, "cpu": 0.0, "ema": {}}

    def drawn(self, rng: random.Random) -> Any:
        """The batch that ``rng`` decides, its kinds of question by `weights`."""
        raise NotImplementedError

    def losses(self, batch: Any) -> tuple[Tensor, Tensor | None, Tensor | None, float]:
        """Loss, correct answers [Q], their kinds [Q] (None without questions), and the share that the heads read right."""
        raise NotImplementedError

    def save(self) -> None:
        """Write model, heads, optimizer and curriculum state into the output folder."""
        self.model.save_pretrained(self.out)
        save_file(self.heads.state_dict(), self.out / HEADS)
        save_state(self.out, self.optimizers, self.state)

    def load(self) -> None:
        """Restore what `save` wrote."""
        saved = type(self.model).from_pretrained(self.out, dtype=torch.float32)
        self.model.load_state_dict(saved.state_dict())
        self.heads.load_state_dict(load_file(self.out / HEADS))
        self.state = load_state(self.out, self.optimizers)

    def weights(self) -> dict[str, float]:
        """How often each kind of the stage is asked: more often where more is wrong."""
        ema = self.state["ema"]
        return {kind: 0.1 + 1 - ema.get(kind, (0.0, 0))[0] for kind in self.stages[self.state["stage"]]}

    def rate(self) -> float:
        """Factor on the learning rates: 100 steps of warm-up, 1, and from ``--decay-at`` on a linear fall to zero."""
        step = self.state["step"]
        return max(0.0, min(1.0, (step + 1) / 100, 1 - (step - self.args.decay_at) / self.args.decay_steps))

    def draw(self) -> Any:
        """The batch of this step: it follows from seed, step and `weights`.

        Raises:
            ValueError: the step's number belongs to the seeds for evaluation.
        """
        if not self.state["step"] < EVALUATION_SEED:
            raise ValueError(f"step={self.state['step']} would draw seeds for evaluation; stop below {EVALUATION_SEED}")
        return self.drawn(random.Random(f"train-{self.args.seed}-{self.state['step']}"))

    def step(self) -> None:
        """One optimizer step; accuracies are folded into the running means."""
        loss, right, kinds, helped = self.losses(self.draw())
        loss.backward()
        nn.utils.clip_grad_norm_([*self.model.parameters(), *self.heads.parameters()], 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * self.rate()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.fold(self.help_name, helped, 1)
        if right is not None:
            for i, kind in enumerate(self.kinds):
                own = right[kinds == i].float()
                if len(own):
                    self.fold(kind, own.mean().item(), len(own))
        self.state["loss"] = round(loss.item(), 3)
        self.state["step"] += 1
        self.state["stage_step"] += 1
        self.state[self.unit] += self.args.rows

    def fold(self, name: str, value: float, count: int) -> None:
        """Fold the mean of ``count`` answers into a running mean over about the last 1,000 (25 batches for the heads)."""
        mean, seen = self.state["ema"].get(name, (0.0, 0))
        last = 25 if name == self.help_name else 1000
        self.state["ema"][name] = (mean + (value - mean) * count / min(last, seen + count), min(last, seen + count))

    def advance(self) -> None:
        """Go to the next stage when all its accuracies pass its gate, or when it has had its share of steps."""
        stage, ema = self.state["stage"], self.state["ema"]
        if stage + 1 == len(self.stages):
            return
        names = self.stages[stage] or (self.help_name,)
        passed = all(ema.get(name, (0.0, 0))[0] > self.args.gate for name in names)
        if passed or self.state["stage_step"] >= self.args.stage_steps:
            self.state |= {"stage": stage + 1, "stage_step": 0}
            self.log(f"-> stage {stage + 1}: {', '.join(self.stages[stage + 1])}")

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
                speed = state[self.unit] / state["cpu"]
                self.log(
                    f"step {state['step']} stage {state['stage']} loss {state['loss']} {ema} lr x{self.rate():.2f} "
                    f"{state['cpu'] / 60:.1f} CPU min {speed:.1f} {self.unit}/s"
                )
            if time.monotonic() - saved > self.args.save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()
