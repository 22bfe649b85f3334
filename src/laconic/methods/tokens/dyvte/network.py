"""The learned part of DyVTE, a small network per layer that says whether visual tokens may leave behind it, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from laconic import learned


class Gate(nn.Module):
    """``W2 GELU(W1 [m; e])`` without biases, W1 [width, 2D], W2 [2, width]; Xavier uniform (arXiv 2411.19628)."""

    def __init__(self, hidden: int, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(2 * hidden, width, bias=False), nn.Linear(width, 2, bias=False)
        nn.init.xavier_uniform_(self.first.weight)
        nn.init.xavier_uniform_(self.second.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, 2D] -> logits [B, 2]: stay, leave."""
        weight = self.first.weight
        return self.second(nn.functional.gelu(self.first(features.to(weight))))


def question_feature(question: Tensor) -> Tensor:
    """Hidden states of a question [q, D] -> [2D]: the mean without the last token, and the last token. A question of one
    token is its own mean.

    Raises:
        ValueError: no token at all.
    """
    if not len(question):
        raise ValueError("dyvte decides by the text behind the images, but a prompt ends with its image.")
    return torch.cat([(question[:-1] if len(question) > 1 else question).mean(0), question[-1]])


@dataclass
class Gates:
    """A checkpoint.

    Attributes:
        layers: the gate behind each decoder layer but the last.
        model, fingerprint: what they were trained for; None for any.
        shares: (threshold, mean share of the visual tokens over layers) on training samples, thresholds ascending.
        made: how, for people.
    """

    layers: nn.ModuleList
    model: str = ""
    fingerprint: str | None = None
    shares: list[tuple[float, float]] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Write a safetensors file; numbers are stored as `dtype`."""
        learned.save(path, "dyvte", self, self.layers, dtype, shares=self.shares)


def load(path: str | Path) -> Gates:
    """The checkpoint in a safetensors file, fp32 and frozen; raises `RecipeError` when it is none."""
    return learned.load(path, "dyvte", _built)


def _built(about: Mapping[str, Any], tensors: dict[str, Tensor]) -> Gates:
    layers = nn.ModuleList()
    while (name := f"{len(layers)}.first.weight") in tensors:
        width, twice = tensors[name].shape
        layers.append(Gate(twice // 2, width))
    layers.load_state_dict(tensors)
    layers.requires_grad_(False)
    shares = [(float(a), float(b)) for a, b in about["shares"]]
    return Gates(layers, about["model"], about["fingerprint"], shares, about["made"])


def find(model: nn.Module, given: str | None) -> Gates:
    """The checkpoint for `model`; see `laconic.learned.find`."""
    return learned.find(model, "dyvte", given, load)
