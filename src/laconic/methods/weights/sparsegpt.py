"""SparseGPT: pruned weights whose neighbours make up for them (arXiv 2301.00774)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.fit.calibration import CalibrationFit
from laconic.method import register
from laconic.ops.obs import BLOCK, compensate, inverse_factor
from laconic.weights.compensated import CompensatedEdit
from laconic.weights.pruner import Pruner


@register(
    "sparsegpt",
    site="weights",
    mechanism="unstructured pruning",
    source="arXiv 2301.00774",
    query_aware=False,
    training="calibration",
    fit="laconic.methods.weights.sparsegpt:SparseGPTFit",
)
@dataclass(kw_only=True)
class SparseGPT(Pruner, CompensatedEdit):
    """Set weights to zero column by column, and change the later ones of their row so that outputs over a text change least.

    With U the upper Cholesky factor of the inverse Gram matrix of the inputs, weights of lowest ``W_ij^2 / U_jj^2`` go: the
    share that is asked for of every block of 128 columns over all rows, or of every m in sequence under a pattern. Layers
    are pruned in order, and a layer's inputs are those after all layers before it were pruned.

    Args:
        damping: what is added to the Gram matrix's diagonal, as a share of its mean (0.01).
        artifact: the text, as `laconic fit sparsegpt` wrote it; `laconic bake` reads one by itself.
    """

    def prune(self, model: PreTrainedModel) -> None:
        for _, linear, weight, gram in self.each(model):
            linear.weight = nn.Parameter(self.pruned(weight, gram).to(linear.weight), requires_grad=False)

    def pruned(self, weight: Tensor, gram: Tensor) -> Tensor:
        """W [out, in] pruned for inputs with the Gram matrix [in, in]. Weights of inputs that are always zero go first."""
        factor = inverse_factor(gram, self.damping)
        weight = weight.masked_fill(gram.diagonal() == 0, 0)
        block = BLOCK if self.group is None else BLOCK // self.group[1] * self.group[1]
        return compensate(weight, factor, self._column(factor, block), block)

    def _column(self, factor: Tensor, block: int) -> Callable[[Tensor, int], Tensor]:
        """Zeros where scores are low; scores are read when a block, or m columns of a pattern, begin."""
        width = block if self.group is None else self.group[1]
        low = torch.zeros(0)

        def column(now: Tensor, j: int) -> Tensor:
            nonlocal low
            if j % width == 0:
                scores = (now[:, j : j + width] / factor.diagonal()[j : j + width]).square()
                low = self.lowest(scores) if self.group else self.lowest(scores.flatten()).view_as(scores)
            return now[:, j].masked_fill(low[:, j % width], 0)

        return column


@dataclass(kw_only=True)
class SparseGPTFit(CalibrationFit):
    """The text over which outputs are to change least."""

    method: ClassVar[str] = "sparsegpt"
