"""How EAS is fitted: a search for attentions to skip while adapters train, then fresh adapters for those that it found."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.contract import TrainingFit
from laconic.fit.images import numbered, with_answers
from laconic.fit.losses import answer_loss
from laconic.fit.schedules import linear_decay, warmup_cosine
from laconic.fit.text import IGNORED, ChatSource, FileSource, Source
from laconic.methods.weights.eas.applied import applied, check_layout
from laconic.methods.weights.eas.network import Adapters
from laconic.methods.weights.eas.search import Search

WARMUP = 0.1
"""Share of the steps after the search in which their learning rate rises."""


class Batch(NamedTuple):
    """The data of one step.

    Attributes:
        given: what the model takes. `labels` [B, T], -100 where nothing is asked.
        over: the tokens of the prompts, which the adapters' means run over, [B, T].
    """

    step: int
    given: dict[str, Tensor]
    labels: Tensor
    over: Tensor


@dataclass(kw_only=True)
class EASFit(TrainingFit):
    """Which attentions a task does not need, and the adapters in their places.

    In the first `search` steps every step skips attentions drawn by their scores and trains adapters of both kinds; after
    `warmup` of them, every `turn` steps, `subsets` draws are tried on the batch and change the scores. Then the best `k` are
    skipped, and fresh adapters train in the steps that are left.

    Args:
        search, warmup, turn, subsets: see above. LaVIN searches for 10 epochs, 5 of them warm-up.
        skip: layers to skip, from 1 on; there is no search then.
        k: attentions to skip; None: 12 of 32 layers, scaled to the model's depth.
        lr_scores, rule: of the scores: "softmax" with 2.0 (LaVIN), or "sigmoid" with 1.0 (LLaVA).
        width, skip_width: of the adapters of kept and of skipped layers; scale, temperature, dropout: of all of them.
        lr, weight_decay: of AdamW. The rate falls to zero linearly in the search, and by a cosine after it.
        tokens, batch_size: of the sequences of a step.
        text: a UTF-8 file to train on: the second half of a window is learned, the first is its prompt. Empty for the
            testbed's task chats (only for its models).
        file: for a model that sees images, lines of JSON ``{"image": FILE, "question": TEXT, "answer": TEXT}``; empty for
            the testbed's scenes (only for its models).
    """

    steps: int = 2000
    search: int = 1000
    warmup: int = 500
    turn: int = 10
    subsets: int = 3
    skip: tuple[int, ...] = ()
    k: int | None = None
    lr_scores: float = 2.0
    rule: str = "softmax"
    width: int = 8
    skip_width: int = 32
    scale: float = 1.0
    temperature: float = 10.0
    dropout: float = 0.1
    lr: float = 1e-3
    weight_decay: float = 0.02
    tokens: int = 512
    batch_size: int = 8
    text: str = ""
    file: str = ""

    method: ClassVar[str] = "eas"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "warmup", "dropout", "weight_decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rule not in ("softmax", "sigmoid"):
            raise ValueError(f"eas: rule={self.rule!r}: choose 'softmax' or 'sigmoid'.")
        if not self.skip and not self.warmup < self.search < self.steps:
            raise ValueError(
                f"eas: search={self.search} must be more than warmup={self.warmup} and less than steps={self.steps}, in the "
                "rest of which the adapters for the layers found are trained; or give skip=."
            )
        if self.skip and self.k not in (None, len(self.skip)):
            raise ValueError(f"eas: skip={self.skip} names {len(self.skip)} layers, but k={self.k}; give one of them.")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> Adapters:
        depth = len(check_layout(model))
        made = {"width": self.width, "skip_width": self.skip_width, "dropout": self.dropout}
        self.made = {**made, "scale": self.scale, "temperature": self.temperature}
        self.model, self.tokenizer = model, tokenizer
        self.chooser: Search | None = None
        self.adapters = Adapters.of(model, self.skip, both=not self.skip, **self.made)
        if not self.skip:
            k = self.k or max(1, depth * 12 // 32)
            self.chooser = Search(range(1, depth), k, lr=self.lr_scores, rule=self.rule)
            self.adapters.search = self.chooser  # its scores are part of every checkpoint
        return self.adapters

    def examples(self, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """What the model takes in `step`, and labels [B, T]."""
        if hasattr(self.tokenizer, "image_processor"):
            question = numbered(self.file, self.seed)
            numbers = range(step * self.batch_size, (step + 1) * self.batch_size)
            return with_answers(self.tokenizer, [question(number) for number in numbers])
        ids, labels = self.source.batch(self.seed, step, self.batch_size, self.tokens)
        return {"input_ids": ids}, labels

    @cached_property
    def source(self) -> Source:
        """Where text comes from."""
        return FileSource(self.tokenizer, Path(self.text)) if self.text else ChatSource(self.tokenizer)

    def optimizer(self, module: torch.nn.Module) -> torch.optim.Optimizer:
        self._optimizer = torch.optim.AdamW(
            module.parameters(), lr=self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay
        )
        return self._optimizer

    def rate(self, step: int) -> float:
        searching = 0 if self.skip else self.search
        if step < searching:
            return linear_decay(step, searching)
        return warmup_cosine(step - searching, self.steps - searching, WARMUP)

    def batch(self, step: int) -> Batch:
        """The data of `step`. The first step after the search begins with fresh adapters, for the layers that it found."""
        if self.chooser is not None and step == self.search:
            self.adapters.reset()
            self._optimizer.state.clear()
        given, labels = self.examples(step)
        labels, over = prompts(labels, given.get("attention_mask"))
        device = self.model.device
        given = {name: x.to(device) for name, x in given.items()}
        return Batch(step, given, labels.to(device), over.to(device))

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of the answers. In the search, the scores change before the adapters do."""
        if self.chooser is None or batch.step >= self.search:
            return self.cost(batch, self.found())
        if batch.step >= self.warmup and batch.step % self.turn == 0:
            self.adapters.eval()
            with torch.no_grad():
                self.chooser.round(self.subsets, lambda skip: float(self.cost(batch, skip)))
            self.adapters.train()
        return self.cost(batch, self.chooser.draw())

    def cost(self, batch: Batch, skip: Collection[int]) -> Tensor:
        """The loss of a batch while the layers `skip` have no attention."""
        with applied(self.model, self.adapters, skip) as placed:
            placed.begin(batch.over)
            logits = self.model(**batch.given, use_cache=False).logits
        return answer_loss(None, logits, batch.labels)

    def found(self) -> tuple[int, ...]:
        """The layers to skip, as far as is known."""
        return self.skip if self.chooser is None else self.chooser.best()

    def progress(self) -> str:
        return f"skipped {' '.join(map(str, self.found()))}"

    def facts(self) -> dict[str, Any]:
        """The layers, and what the adapters are like. Afterwards there are no others, and no scores."""
        data: dict[str, Any] = {"skip": list(self.found()), "adapters": self.made}
        if self.chooser is not None:
            data["scores"] = [round(score, 4) for score in self.chooser.scores.tolist()]
            del self.adapters.search
        self.adapters.prune(data["skip"])
        return data


def prompts(labels: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Labels [B, T] to learn, and which tokens [B, T] are the prompt: those before the first label of their row. A row that
    has labels from its start on is text without a prompt: its first half serves as one, and has no loss.

    Args:
        real: 0 at padding, [B, T]; None: all are real.
    """
    place = torch.arange(labels.shape[1]).expand_as(labels)
    first = (labels != IGNORED).int().argmax(1, keepdim=True)
    first = torch.where(first > 1, first, labels.shape[1] // 2)
    over = place < first
    labels = labels.masked_fill(over, IGNORED)
    return labels, over if real is None else over & real.bool()
