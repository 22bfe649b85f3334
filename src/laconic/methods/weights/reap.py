"""REAP: router-weighted expert activation pruning (arXiv 2510.13999)."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import BudgetError
from laconic.fit.calibration import CalibrationFit
from laconic.method import register
from laconic.weights.edit import FittedEdit
from laconic.weights.experts import Mixture, mixtures, resized
from laconic.weights.walk import ROWS


@register(
    "reap",
    site="weights",
    mechanism="expert dropping",
    source="arXiv 2510.13999",
    query_aware=False,
    training="calibration",
    inferred="an expert that no token of the text chose counts as 0",
    fit="laconic.methods.weights.reap:REAPFit",
)
@dataclass(kw_only=True)
class REAP(FittedEdit):
    """Remove the experts of lowest ``mean g_j(x) * ||f_j(x)||`` in each layer.

    That is the router's weight times the size of the output, over the tokens of a text that chose them. The router goes on
    with the rows of those that stay.

    ``keep`` is the share of the experts that stay, rounded to a whole number in each layer; there must be enough for the
    router to choose from. Nothing is trained afterwards.

    Args:
        artifact: every expert's figure, as `laconic fit reap` wrote it; `laconic bake` measures them by itself.
    """

    default_keep: ClassVar[float | None] = 0.5
    saves: ClassVar[str] = "bytes: experts that are gone are not stored; FLOPs and time stay, as many experts run per token"

    def prepare(self, model: PreTrainedModel) -> None:
        saliency = self.found(model).tensors["saliency"]
        blocks, config = mixtures(model, self.name), model.config.get_text_config()
        assert self.keep is not None
        stay = round(self.keep * blocks[0].count)
        if stay < config.num_experts_per_tok:
            raise BudgetError(
                f"reap: keep={self.keep} leaves {stay} of {blocks[0].count} experts, and {config.num_experts_per_tok} run "
                "per token; keep more."
            )
        self._kept = saliency.argsort(dim=-1, descending=True, stable=True)[:, :stay].sort(-1).values

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        blocks = mixtures(model, self.name)
        facts = {"experts": self._kept.shape[1], "experts before": blocks[0].count}
        for block, kept in zip(blocks, self._kept, strict=True):
            block.choose(kept.to(block.experts.down_proj.device))
        resized(model, count=self._kept.shape[1])
        return facts


@dataclass(kw_only=True)
class REAPFit(CalibrationFit):
    """What each expert gives to the tokens that choose it, over a text."""

    method: ClassVar[str] = "reap"

    def facts(self) -> dict[str, Any]:
        read, blocks = super().facts(), mixtures(self.model, self.method)
        self._sums = torch.zeros(len(blocks), blocks[0].count, dtype=torch.float64)
        self._tokens = torch.zeros_like(self._sums)
        with torch.no_grad(), ExitStack() as hooks:
            for i, block in enumerate(blocks):
                hooks.callback(block.experts.register_forward_pre_hook(self._watch(i, block)).remove)
            for rows in self._ids.long().split(ROWS):
                self.model(input_ids=rows.to(self.model.device), use_cache=False, logits_to_keep=1)
        return read | {"experts never chosen": int((self._tokens == 0).sum())}

    def tensors(self) -> dict[str, Tensor]:
        """`saliency` and `tokens`, [layers, E]: the figure of every expert, and how many tokens chose it."""
        saliency = self._sums / self._tokens.clamp(min=1)
        return {"saliency": saliency.float(), "tokens": self._tokens.float()}

    def _watch(self, layer: int, block: Mixture) -> Any:
        def hook(module: Any, args: tuple[Tensor, Tensor, Tensor]) -> None:
            hidden, chosen, weights = args
            for expert in range(block.count):
                rows, places = torch.where(chosen == expert)
                if len(rows):
                    size = block.output(expert, hidden[rows]).float().norm(dim=-1)
                    self._sums[layer, expert] += float((weights[rows, places].float() * size).sum())
                    self._tokens[layer, expert] += len(rows)

        return hook
