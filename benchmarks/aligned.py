"""laconic's methods of `agree_kvpress.py` under the same parameters, and variants with one known difference taken out.

A variant is a proof of a cause: what the method and its peer disagree about must be gone in it. The package has none of
these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from subjects import ALPHA, BETA, EPSILON, FUTURE, KERNEL, SINKS, WINDOW

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.method import create_method
from laconic.methods.cache.h2o import H2O
from laconic.methods.cache.pyramidkv import PyramidKV
from laconic.methods.cache.snapkv import SnapKV

VIEW: dict[str, Any] = {"window": WINDOW, "kernel": KERNEL}
EXPECTED: dict[str, Any] = {"future": FUTURE, "sinks": SINKS}


@dataclass(kw_only=True)
class WholeWindow(SnapKV):
    """SnapKV whose window stays whole, however small the budget: here it takes half of the budget at most."""

    def forced(self) -> tuple[int, int]:
        return 0, 0

    def score(self, obs: Observation) -> torch.Tensor:
        return _forced(super().score(obs), self.window)


@dataclass(kw_only=True)
class PeerPyramid(PyramidKV):
    """PyramidKV with kvpress's layer budgets: the slope runs over all of a layer's entries, the window among them, and is
    left flat where the last layer would get less than the window."""

    def forced(self) -> tuple[int, int]:
        return 0, 0

    def score(self, obs: Observation) -> torch.Tensor:
        return _forced(super().score(obs), self.window)

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        assert self.keep is not None
        wanted = seen * (1 - (1 - self.keep))  # rounded like a share removed
        low = wanted / self.beta
        high = 2 * wanted - low
        if high >= seen - self.window:
            high, low = seen - self.window, 2 * wanted - (seen - self.window)
        if not seen >= high >= low >= self.window:
            return max(1, round(wanted))
        return round(high - layer * (high - low) / (layers - 1))


@dataclass(kw_only=True)
class NoRecent(H2O):
    """H2O without its recent half: all of the budget goes to the heavy hitters."""

    def forced(self) -> tuple[int, int]:
        return 0, 0


def _forced(scores: torch.Tensor, window: int) -> torch.Tensor:
    scores = scores.clone()
    scores[..., -window:] = torch.finfo(scores.dtype).max
    return scores


def method(name: str, keep: float, aligned: bool = False) -> CacheMethod:
    """A method of `subjects.METHODS` that keeps this share; `aligned` takes the known difference out.

    Raises:
        ValueError: `aligned`, but no difference is known.
    """
    if aligned:
        variants: dict[str, Any] = {
            "snapkv": lambda: WholeWindow(keep=keep, **VIEW),
            "adakv": lambda: create_method("adakv", keep=keep, scorer=WholeWindow(**VIEW), alpha=ALPHA),
            "pyramidkv": lambda: PeerPyramid(keep=keep, beta=BETA, pooling="avg", **VIEW),
            "h2o": lambda: NoRecent(keep=keep, normalise=True),
        }
        if name not in variants:
            raise ValueError(f"{name!r} has no aligned variant; choose one of {', '.join(variants)}")
        return variants[name]()  # type: ignore[no-any-return]
    own: dict[str, dict[str, Any]] = {
        "snapkv": VIEW,
        "adakv": {"scorer": SnapKV(**VIEW), "alpha": ALPHA},
        "adakv_expected": {"scorer": create_method("expected_attention", epsilon=EPSILON, **EXPECTED), "alpha": ALPHA},
        "pyramidkv": {"beta": BETA, "pooling": "avg", **VIEW},
        "expected_attention": EXPECTED,
        "streaming_llm": {"sinks": SINKS},
        "h2o": {"normalise": True},
    }
    return create_method(name.removesuffix("_expected"), keep=keep, **own.get(name, {}))  # type: ignore[return-value]
