"""The contract of methods that set single weights to zero: how many, and in which groups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import BudgetError, UnsupportedModelError
from laconic.weights.edit import WeightEdit
from laconic.weights.matrices import Matrices, matrices


@dataclass(kw_only=True)
class Pruner(WeightEdit):
    """Sets weights of the decoder layers' linear maps to zero, the same share in each. Embeddings, norms and the head stay.

    Args:
        pattern: such as ``"2:4"``: of every 4 weights in sequence along a row the 2 best stay. It is the budget then.
    """

    pattern: str | None = None
    default_keep: ClassVar[float | None] = 0.5

    def __post_init__(self) -> None:
        self.group = _parsed(self.name, self.pattern)
        if self.group is not None:
            stay, of = self.group
            if self.keep not in (None, 1.0, stay / of):
                raise BudgetError(
                    f"{self.name}: keep={self.keep}, but pattern={self.pattern!r} keeps {stay} of {of}: leave keep out."
                )
            self.keep = self.keep or stay / of
        super().__post_init__()

    def prepare(self, model: PreTrainedModel) -> None:
        for name, linear in self._each(model):
            if self.group is not None and linear.in_features % self.group[1]:
                raise UnsupportedModelError(
                    f"{self.name}: pattern={self.pattern!r} needs rows whose length is a multiple of {self.group[1]}; "
                    f"{name} has {linear.in_features}; give keep= instead."
                )
        super().prepare(model)

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        self.prune(model)
        counts = [(int((linear.weight == 0).sum()), linear.weight.numel()) for _, linear in self._each(model)]
        zeros, total = (sum(column) for column in zip(*counts, strict=True))
        return {"sparsity": zeros / total, "zeros": zeros, "weights of linear maps": total}

    def prune(self, model: PreTrainedModel) -> None:
        """Put pruned weights into all maps."""
        raise NotImplementedError(f"{type(self).__name__} must define prune().")

    def lowest(self, scores: Tensor) -> Tensor:
        """Where the lowest scores of each group are, bool like `scores` [..., n]: as many as the sparsity asks for of the n
        numbers of the last dimension, or of every m in sequence under a pattern. Of equal scores the earlier is lower."""
        if self.group is not None:
            stay, of = self.group
            return lowest(scores.unflatten(-1, (-1, of)), of - stay).flatten(-2)
        return lowest(scores, round(self.sparsity * scores.shape[-1]))

    def _each(self, model: PreTrainedModel) -> list[tuple[str, Any]]:
        layers: list[Matrices] = matrices(model, self.name)
        return [pair for layer in layers for pair in layer.items()]


def lowest(scores: Tensor, count: int) -> Tensor:
    """True at the `count` lowest of the last dimension, the earlier one first among equals."""
    found = torch.zeros_like(scores, dtype=torch.bool)
    return found.scatter_(-1, scores.argsort(dim=-1, stable=True)[..., :count], True)


def _parsed(name: str, pattern: str | None) -> tuple[int, int] | None:
    if pattern is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", str(pattern))
    if match is None or not 0 < int(match[1]) < int(match[2]) <= 64:
        raise ValueError(f"{name}: pattern={pattern!r}: write such as '2:4', fewer that stay than there are, 64 at most.")
    return int(match[1]), int(match[2])
