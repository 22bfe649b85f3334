"""Training the network of `explainability`: label what the frozen host answers correctly, then fit the labels.

Both halves can be interrupted: pairs of attention and relevance are in the folder, and the host is not needed once they are
made (arXiv 2506.01097, section 3).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.atomic import replacing
from laconic.engine.engine import Engine, Request
from laconic.fit.contract import TrainingFit
from laconic.fit.images import inputs, numbered
from laconic.methods.tokens.explainability.network import RelevanceNet
from laconic.methods.tokens.explainability.relevance import explained, target

PAIRS = "pairs.safetensors"
Pair = tuple[Tensor, Tensor]
"""Attention and relevance of the visual tokens of one question, [v] each."""


Questions = Callable[[int], tuple[dict[str, Tensor], str]]
"""Number of a question, from 0 -> model inputs of its prompt, and the reference answer. Equal numbers give equal
questions."""


class Labels:
    """Pairs (attention, R*) [v] each, made one question after the other.

    Attributes:
        done: questions asked so far; `pairs`: those that the host answered correctly.
    """

    def __init__(self, engine: Engine, questions: Questions, new_tokens: int):
        self.engine, self.questions = engine, questions
        self.request = Request(methods=None, max_new_tokens=new_tokens)
        self.done = 0
        self.pairs: list[Pair] = []

    def label(self) -> bool:
        """Ask the next question; true if its answer was right and a pair was made. The model must attend eagerly."""
        model = self.engine.model
        prompt, reference = self.questions(self.done)
        self.done += 1
        given = {name: x.to(model.device) for name, x in prompt.items()}
        (answer,) = self.engine.answer_batch(given, self.request)
        if answer.text.strip() != reference:
            return False
        ids = torch.tensor(answer.ids, device=model.device)
        attention, relevance = explained(model, given, _spoken(ids, model))
        self.pairs.append((attention, target(relevance)))
        return True

    def save(self, path: Path) -> None:
        """All pairs so far, and how many questions they took."""
        tensors = {f"{i}.{name}": x for i, pair in enumerate(self.pairs) for name, x in zip("ar", pair, strict=True)}
        with replacing(path) as unfinished:
            save_file({**tensors, "done": torch.tensor(self.done)}, unfinished)

    def load(self, path: Path) -> None:
        tensors = load_file(path)
        self.done = int(tensors.pop("done"))
        self.pairs = [(tensors[f"{i}.a"], tensors[f"{i}.r"]) for i in range(len(tensors) // 2)]


def _spoken(answer: Tensor, model: PreTrainedModel) -> Tensor:
    """Generated tokens without the end of the turn, unless there is nothing else."""
    config: Any = model.generation_config
    ends = config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    stops = [i for i, token in enumerate(answer.tolist()) if token in ends]
    return answer[: stops[0]] if stops and stops[0] else answer[: len(answer) if not stops else 1]


def divergence(net: nn.Module, pairs: list[Pair]) -> Tensor:
    """Mean KL(R* || softmax of the network's output). Pairs of equal length are batched; lengths do not mix."""
    total = torch.zeros((), device=pairs[0][0].device)
    for length in sorted({len(a) for a, _ in pairs}):
        some = [(a, r) for a, r in pairs if len(a) == length]
        said = net(torch.stack([a for a, _ in some])).log_softmax(-1)
        total = total + F.kl_div(said, torch.stack([r for _, r in some]), reduction="sum")
    return total / len(pairs)


@dataclass(kw_only=True)
class ExplainabilityFit(TrainingFit):
    """The network that guesses which visual tokens an answer rests on.

    Args:
        samples: questions to label; those that the host answers wrongly are left out.
        new_tokens: longest answer; long ones make relevance flat.
        steps: of the optimiser (Adam) at the constant rate `lr`. `batch_size`: pairs of a step.
        kernel: of the network.
        file: lines of JSON ``{"image": FILE, "question": TEXT, "answer": TEXT}``, any number per image; empty
            for the testbed's scenes (only for its models).
        save_labels: questions between saves of the labels.
    """

    samples: int = 2048
    new_tokens: int = 8
    steps: int = 1600
    batch_size: int = 128
    kernel: int = 5
    log_every: int = 50
    save_every: int = 200
    save_labels: int = 100
    file: str = ""

    method: ClassVar[str] = "explainability"
    attention: ClassVar[str | None] = "eager"  # its attention weights have gradients
    stored: ClassVar[torch.dtype] = torch.float32
    free: ClassVar[tuple[str, ...]] = (*TrainingFit.free, "save_labels")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"explainability: kernel={self.kernel} must be odd.")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> RelevanceNet:
        self.model, self.net = model, RelevanceNet(self.kernel)
        self.labels = Labels(Engine(model, tokenizer), self.questions(tokenizer), self.new_tokens)
        return self.net

    def questions(self, processor: Any) -> Questions:
        """Where questions come from."""
        samples = numbered(self.file, self.seed)

        def ask(number: int) -> tuple[dict[str, Tensor], str]:
            sample = samples(number)
            return inputs(processor, [sample]), sample.answers[0]

        return ask

    def prepare(self, folder: Path | None, resume: bool) -> None:
        """Ask the host all questions that are not labelled yet.

        Raises:
            ValueError: fewer than two answers were right.
        """
        labels, began = self.labels, time.monotonic()
        if folder is not None and resume and (folder / PAIRS).exists():
            labels.load(folder / PAIRS)
        while labels.done < self.samples:
            labels.label()
            if labels.done % self.save_labels == 0 or labels.done == self.samples:
                if folder is not None:
                    labels.save(folder / PAIRS)
                right, seconds = len(labels.pairs), time.monotonic() - began
                self.note(f"{labels.done} questions, {right} answered right, {seconds:.0f} s")
        if len(labels.pairs) < 2:
            raise ValueError(
                f"the host answered {len(labels.pairs)} of {labels.done} questions right; too few to train on. Give data "
                "that it answers, whose reference answers are written as it writes them."
            )

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), lr=self.lr)

    def batch(self, step: int) -> list[Pair]:
        """Pairs drawn by seed and step."""
        pairs, rng = self.labels.pairs, random.Random(f"{self.seed}-{step}")
        some = rng.sample(pairs, min(self.batch_size, len(pairs)))
        return [(a.to(self.model.device), r.to(self.model.device)) for a, r in some]

    def loss(self, batch: list[Pair]) -> Tensor:
        return divergence(self.net, batch)

    def facts(self) -> dict[str, Any]:
        return {"kernel": self.kernel, "pairs": len(self.labels.pairs)}
