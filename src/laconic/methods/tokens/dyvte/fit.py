"""Training of DyVTE's gates: does the answer stay when all visual tokens leave behind a layer? (arXiv 2411.19628)

The model is frozen and runs twice per step: whole, and with the visual tokens gone behind one layer, drawn for the batch.
The second run is the session that inference uses; leaving and blocking the visual columns are the same for the text.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families.vision import vision_family_of
from laconic.fit.checkpoint import FREE, frozen, load_state, noting, resumable, save_state
from laconic.fit.images import numbered, with_answers
from laconic.fit.text import IGNORED
from laconic.fit.trainers import register
from laconic.methods.tokens.dyvte.method import DyVTE
from laconic.methods.tokens.dyvte.network import Gate, Gates, load, question_feature
from laconic.recipe import fingerprint, model_name
from laconic.session import compress
from laconic.version import versions

WEIGHTS = "dyvte.safetensors"
Examples = Callable[[int], tuple[dict[str, Tensor], Tensor]]
"""Number of a batch -> inputs with answers, padded on the left, and labels [B, T]."""


@dataclass(kw_only=True)
class Settings:
    """What can be set.

    Attributes:
        width: of the hidden layer (2048, as published; 128 does for small models).
        lr: peak of the cosine; warmup: share of the steps before it.
        agree: share of the answer's tokens that must not change (over 0.99); worse: how many times the loss may grow (1.03).
        check: batches after training from which thresholds learn the share that they keep.
        file: JSON lines with "image", "question" and "answer"; empty for drawn scenes.
    """

    width: int = 2048
    batch: int = 16
    steps: int = 400
    lr: float = 6e-5
    warmup: float = 0.03
    agree: float = 0.99
    worse: float = 1.03
    check: int = 8
    seed: int = 0
    log_every: int = 25
    save_every: int = 100
    file: str = ""

    def __post_init__(self) -> None:
        for name in ("width", "batch", "steps", "lr", "check", "log_every", "save_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive.")
        if self.seed < 0 or not 0 <= self.warmup < 1:
            raise ValueError(f"seed={self.seed} must be 0 or more, and warmup={self.warmup} at least 0 and below 1.")


def safe(whole: Tensor, short: Tensor, labels: Tensor, agree: float, worse: float) -> Tensor:
    """Whether each answer survives: logits of the two runs and labels of the same m tokens, [B, m, V] and [B, m] (-100 where
    there is no answer) -> bool [B].

    Agreement of the likeliest tokens over `agree`, and a mean loss of at most `worse` times the whole model's.
    """
    asked = labels != IGNORED
    count = asked.sum(1).clamp(min=1)
    same = ((whole.argmax(-1) == short.argmax(-1)) & asked).sum(1) / count
    losses = []
    for logits in (whole, short):
        each = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        losses.append(each.sum(1) / count)
    return (same > agree) & (losses[1] <= worse * losses[0])


def answers_at(labels: Tensor) -> int:
    """Columns from the end that hold all answers and the token before them."""
    return int(labels.shape[1] - (labels != IGNORED).any(0).nonzero()[0, 0]) + 1


class Training:
    """The state of one training: gates, optimiser, step; all of it is in the folder after `save`."""

    def __init__(
        self, model: PreTrainedModel, examples: Examples, settings: Settings, out: Path, log: Callable[[str], None]
    ):
        self.model, self.examples, self.settings, self.out, self.note = model, examples, settings, out, noting(out, log)
        config: Any = model.config.get_text_config()
        torch.manual_seed(settings.seed)
        layers = nn.ModuleList(Gate(config.hidden_size, settings.width) for _ in range(config.num_hidden_layers - 1))
        made = {"settings": asdict(settings), "versions": versions()}
        self.gates = Gates(layers.to(model.device), model_name(model), fingerprint(model), made=made)
        self.optimiser = torch.optim.AdamW(layers.parameters(), lr=settings.lr, weight_decay=0.0)
        self.done, self.seconds = 0, 0.0

    @torch.no_grad()
    def whole(self, given: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at the answers [B, m, V], and what each gate reads of each question, [L - 1, B, 2D]."""
        out = self.model(**given, output_hidden_states=True, use_cache=False, logits_to_keep=answers_at(labels))
        token = given["input_ids"] == vision_family_of(self.model).token_id(self.model, "image")
        features = []
        for hidden in out.hidden_states[1:-1]:
            rows = []
            for b, row in enumerate(hidden):
                first = int(token[b].nonzero()[-1, 0]) + 1
                stop = int((labels[b] != IGNORED).nonzero()[0, 0])
                rows.append(question_feature(row[first:stop]))
            features.append(torch.stack(rows))
        return out.logits, torch.stack(features)

    def batch(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        """Batch `number` on the model's device."""
        given, labels = self.examples(number)
        return {k: v.to(self.model.device) for k, v in given.items()}, labels.to(self.model.device)

    @torch.no_grad()
    def label(self, given: dict[str, Tensor], labels: Tensor, whole: Tensor, layer: int) -> Tensor:
        """Whether the visual tokens of each sample may leave behind `layer`, bool [B]."""
        columns = answers_at(labels)
        with compress(self.model, DyVTE(exit_layer=layer)):
            short = self.model(**given, logits_to_keep=columns).logits
        wanted = labels[:, 1 - columns :]
        return safe(whole[:, :-1], short[:, :-1], wanted, self.settings.agree, self.settings.worse)

    def step(self) -> tuple[float, float]:
        """One batch and one layer: the loss of its gate, and how often the gate is right."""
        settings = self.settings
        given, labels = self.batch(self.done)
        layer = random.Random(f"{settings.seed}-{self.done}").randrange(len(self.gates.layers))
        whole, features = self.whole(given, labels)
        leave = self.label(given, labels, whole, layer).long()
        logits = self.gates.layers[layer](features[layer])
        loss = F.cross_entropy(logits, leave)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.lr * self.rate()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        return float(loss.detach()), float((logits.argmax(-1) == leave).float().mean())

    def rate(self) -> float:
        """Factor on the learning rate: linear warm-up, then a cosine to zero."""
        at, warm = self.done / self.settings.steps, self.settings.warmup
        return (at + 1 / self.settings.steps) / warm if at < warm else (1 + math.cos(math.pi * (at - warm) / (1 - warm))) / 2

    @torch.no_grad()
    def shares(self) -> list[tuple[float, float]]:
        """(threshold, mean share of the visual tokens over layers) on batches that were not trained on."""
        chances = []
        for number in range(self.settings.steps, self.settings.steps + self.settings.check):
            _, features = self.whole(*self.batch(number))
            logits = torch.stack([gate(x) for gate, x in zip(self.gates.layers, features, strict=True)])
            chances.append(logits.float().softmax(-1)[..., 1])
        chance, depth = torch.cat(chances, 1), len(self.gates.layers) + 1
        # Where gates are sure of themselves nothing happens between 0.01 and 0.99: thresholds are where the chances are.
        ranks = chance.double().flatten().quantile(torch.linspace(0, 1, 97, dtype=torch.float64))
        found = []
        for tau in sorted({0.0, 0.5, *ranks.tolist()}):
            leaves = chance > tau
            first = torch.where(leaves.any(0), leaves.int().argmax(0), depth - 1)
            found.append((tau, round(float((first + 1).double().mean()) / depth, 6)))
        return found

    def run(self) -> Path:
        """Train to the last step; the file of the weights."""
        settings = self.settings
        recent: list[tuple[float, float]] = []
        began, before = time.time(), self.seconds
        while self.done < settings.steps:
            recent.append(self.step())
            self.seconds = before + time.time() - began
            if self.done % settings.log_every == 0 or self.done == settings.steps:
                loss, right = (sum(column) / len(recent) for column in zip(*recent, strict=True))
                self.note(f"step {self.done} loss {loss:.4f} right {100 * right:.1f} % {self.seconds:.0f} s")
                recent = []
            if self.done == settings.steps:
                self.gates.shares = self.shares()
                half = dict(self.gates.shares)[0.5]
                self.note(f"at threshold 0.5 the visual tokens run through {100 * half:.1f} % of the layers")
            if self.done % settings.save_every == 0 or self.done == settings.steps:
                self.save()
        return self.out / WEIGHTS

    def save(self) -> None:
        """Weights (bf16 to ship, fp32 to go on from), optimiser and step."""
        self.gates.save(self.out / WEIGHTS)
        self.gates.save(self.out / f"exact-{WEIGHTS}", torch.float32)
        state = {"done": self.done, "seconds": self.seconds, "settings": asdict(self.settings)}
        save_state(self.out, [self.optimiser], state)

    def resume(self) -> None:
        """Go on from the folder's checkpoint; raises `RecipeError` when there is none or it was made with other settings."""
        state = resumable(self.out, self.settings, (*FREE, "check"))
        self.gates.layers.load_state_dict(load(self.out / f"exact-{WEIGHTS}").layers.state_dict())
        load_state(self.out, [self.optimiser])
        self.done, self.seconds = state["done"], state["seconds"]


def examples(processor: Any, settings: Settings) -> Examples:
    """Batches by number; see `numbered`."""
    ask, size = numbered(settings.file, settings.seed), settings.batch
    return lambda number: with_answers(processor, [ask(number * size + i) for i in range(size)])


@register("dyvte", "the gates that tell when visual tokens may leave (frozen model)", Settings)
def train(
    model: PreTrainedModel, tokenizer: Any, settings: Settings, out: Path, resume: bool, log: Callable[[str], None]
) -> Path:
    """Train gates for `model` and return the file of their weights, ``out/dyvte.safetensors``; `tokenizer` is the model's
    processor."""
    out.mkdir(parents=True, exist_ok=True)
    with frozen(model):
        training = Training(model, examples(tokenizer, settings), settings, out, log)
        if resume:
            training.resume()
        return training.run()
