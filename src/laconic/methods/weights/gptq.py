"""GPTQ: rounded weights whose neighbours make up for them (arXiv 2210.17323)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.calibration import CalibrationFit
from laconic.method import register
from laconic.ops.obs import BLOCK, compensate, inverse_factor
from laconic.weights.compensated import CompensatedEdit
from laconic.weights.quantiser import WeightQuantiser, codes_of, steps_of


@register(
    "gptq",
    site="weights",
    mechanism="quantisation",
    source="arXiv 2210.17323",
    query_aware=False,
    training="calibration",
    fit="laconic.methods.weights.gptq:GPTQFit",
)
@dataclass(kw_only=True)
class GPTQ(WeightQuantiser, CompensatedEdit):
    """Round weights column by column, and change the later ones of their row so that outputs over a text change least.

    A group's step is taken when its first column comes, from the weights as they then are. Columns go in their own order.
    Layers are rounded in order, and a layer's inputs are those after all layers before it were rounded.

    Args:
        damping: what is added to the Gram matrix's diagonal, as a share of its mean (0.01).
        bits, group: see `WeightQuantiser`.
        artifact: the text, as `laconic fit gptq` wrote it; `laconic bake` reads one by itself.
    """

    def quantise(self, model: PreTrainedModel) -> None:
        for name, linear, weight, gram in self.each(model):
            self.put(name, linear, *self.rounded(weight, gram))

    def rounded(self, weight: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [out, in] and steps [out, in / group] of W for inputs with the Gram matrix [in, in]. Weights of inputs that
        are always zero become 0."""
        weight = weight.masked_fill(gram.diagonal() == 0, 0)
        codes, steps = torch.empty_like(weight), []

        def column(now: Tensor, j: int) -> Tensor:
            if j % self.group == 0:
                steps.append(steps_of(now[:, j : j + self.group], self.bits))
            codes[:, j] = codes_of(now[:, j], steps[-1], self.bits)
            return codes[:, j] * steps[-1]

        block = self.group * max(1, BLOCK // self.group)  # a group's columns must be up to date when its step is taken
        compensate(weight, inverse_factor(gram, self.damping), column, block)
        return codes, torch.stack(steps, -1)


@dataclass(kw_only=True)
class GPTQFit(CalibrationFit):
    """The text over which outputs are to change least."""

    method: ClassVar[str] = "gptq"
