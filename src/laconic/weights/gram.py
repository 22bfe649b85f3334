"""Gram matrices of what the linear maps of one layer read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from laconic.weights.walk import inputs_of


def grams(linears: Mapping[str, nn.Linear], run: Callable[[], object]) -> dict[str, Tensor]:
    """``H = X X^T`` of the inputs X [in, n] that each map gets while `run` runs the layer, fp32 [in, in] by name."""
    found: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        product = x.T @ x
        found[name] = found[name] + product if name in found else product

    with inputs_of(linears, add) as leader:
        run()
    return {name: found[leader[name]] for name in linears}
