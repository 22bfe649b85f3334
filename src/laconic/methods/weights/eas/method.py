"""EAS, efficient attention skipping: adapters in place of the attentions that a task does not need (arXiv 2403.15226)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError
from laconic.method import register
from laconic.methods.weights.eas.applied import Applied, applied, check_layout
from laconic.methods.weights.eas.network import Adapters
from laconic.step import Step
from laconic.weights.contract import WeightMethod


@register(
    "eas",
    site="weights",
    modality="text and image",
    mechanism="attention skipping",
    source="arXiv 2403.15226",
    query_aware=False,
    training="trained",
    inferred="means run over the prompt's real tokens (the releases differ), folding starts from the model's own weights, "
    "layer 0 keeps its attention",
)
@dataclass(kw_only=True)
class EAS(WeightMethod):
    """Some layers run without attention: ``x + FFN(PIA(n1(x)) * gamma2)``; they store no keys and values.

    PIA is a low-rank adapter that mixes the prompt's mean into every token. The other layers have an adapter of the same
    kind before q, k and v. The adapters run while the prompt is read, and keep its means; then they are folded into copies
    of the weights, for this prompt, so that decoding pays nothing for them. In a batch of several prompts they go on
    running. Of a prompt that is read in several passes, the means are those of the first one.

    Which layers are skipped is part of the artifact, and so is the budget: ``keep`` is the share of the layers that keep
    their attention. Leave it out, or give the same; 1.0 changes nothing and needs no artifact.

    Args:
        artifact: what `laconic fit eas` wrote: a file, a folder, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        ArtifactError: none for this model.
        BudgetError: tokens= or bytes=, or a share that is not the artifact's.
        UnsupportedModelError: layers that are not laid out like those of Llama and Qwen2.
    """

    artifact: str | None = None
    fixed_budget: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is not None or self.bytes is not None:
            raise BudgetError(
                "eas: a budget in tokens= or bytes= has no meaning here: keep= is the share of the layers that keep their "
                "attention, and the artifact decides it; leave the budget out."
            )
        self._adapters: Adapters | None = None
        self._placed: Applied | None = None

    def attach(self, model: PreTrainedModel) -> None:
        """Load the adapters, unless nothing is to be changed."""
        if self.neutral:
            return
        check_layout(model)
        found = Artifact.find(self.name, model, self.artifact)
        adapters = Adapters.of(model, found.data["skip"], **found.data["adapters"])
        if self.keep is not None and round(self.keep * adapters.depth) != adapters.depth - len(adapters.skip):
            share = 1 - len(adapters.skip) / adapters.depth
            raise BudgetError(
                f"eas: keep={self.keep}, but the artifact skips {len(adapters.skip)} of {adapters.depth} attentions: leave "
                f"keep out, or give keep={share:g}."
            )
        self._adapters = found.restore(adapters)

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[Any]:
        assert self._adapters is not None
        try:
            with applied(model, self._adapters) as self._placed:
                yield
        finally:
            self._placed = None

    def without_attention(self, depth: int) -> Collection[int]:
        return () if self._adapters is None else self._adapters.skip

    def before_prompt(self, step: Step) -> None:
        assert self._placed is not None
        self._placed.begin(lambda x: prompt_rows(step, x))

    def before_decoding(self, step: Step) -> None:
        assert self._placed is not None
        if len(step.real) == 1:  # several prompts have no weights in common
            self._placed.fold()


def prompt_rows(step: Step, x: Tensor) -> Tensor | None:
    """The rows of a layer's input `x` [B, n, D] that are real tokens of the prompt, as the stream now is, [B, n]; None:
    all."""
    if step.valid is None and not step.pseudo:
        return None
    rows = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    rows[:, : x.shape[1] - step.pseudo] = True if step.valid is None else step.valid
    return rows
