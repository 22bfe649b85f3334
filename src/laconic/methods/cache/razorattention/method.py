"""RazorAttention: retrieval heads keep everything; the others sinks, a recent buffer and one token for everything dropped
(arXiv 2407.15891)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.cache.contract import CacheMethod
from laconic.cache.heads import HeadList, highest, resolve, shape
from laconic.cache.layer import CompressedLayer, selected
from laconic.cache.observe import Observation
from laconic.cache.parts.base import FILL, Part
from laconic.errors import ArtifactError, BudgetError
from laconic.method import Reuse, register
from laconic.ops.select import best, from_mask
from laconic.step import Step


@register(
    "razorattention",
    site="cache",
    mechanism="eviction by head, compensation token",
    source="arXiv 2407.15891",
    query_aware=False,
    training="calibration",
    inferred="folding while decoding; budgets by keep=, tokens= or bytes= (published: a buffer of max(4000, N / 5))",
)
@dataclass(kw_only=True)
class RazorAttention(CacheMethod):
    """Heads that look far back keep all their entries; in the others one averaged entry stands for the dropped middle.

    The compensation token is the mean key and the mean value of the ``N_d`` dropped entries, and counts ``N_d`` times:
    ``log N_d`` in the column `bias`. It is stored with index -1, which is not a token, so `session.kept` leaves it out. What
    later passes drop is folded into it exactly.

    Args:
        artifact: what `laconic fit razorattention` wrote: a file, a shipped name, or a Hub id. None takes the one shipped
            for these weights.
        heads: the retrieval heads (KV heads) instead, such as ``"L0H1+L3H0"`` or ``"no"``; see `heads.HeadList`.
        buffer: least length of the recent buffer (4000), while no budget is given.
        share: the buffer is at least one entry in `share` (5), while no budget is given.
        sinks: first tokens that stay in every head (4).
        induction, echo: shares of all KV heads of the model that are kept whole, by either score (0.14 and 0.01).
        compensate: False drops the middle without a trace (the paper's ablation).
        paper_code: the averaged entry counts once, as in the released code, not ``N_d`` times as in the equation (False).
        fold_on_decode: fold what leaves the buffer while decoding, too; False lets the buffer grow, as published.
        fold_every: tokens that are decoded before they are folded together (32).
    """

    artifact: str | None = None
    heads: HeadList | None = None
    buffer: int = 4000
    share: float = 5
    sinks: int = 4
    induction: float = 0.14
    echo: float = 0.01
    compensate: bool = True
    paper_code: bool = False
    fold_on_decode: bool = False
    fold_every: int = 32

    reuse: ClassVar[Reuse] = "exact"
    ragged: ClassVar[bool] = True
    default_keep: ClassVar[float | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.artifact is not None and self.heads is not None:
            raise ValueError("razorattention: give artifact= or heads=, not both.")
        for name, value, least in (("buffer", self.buffer, 1), ("sinks", self.sinks, 0), ("fold_every", self.fold_every, 1)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"razorattention: {name}={value!r} must be a whole number of at least {least}.")
        if self.share < 1:
            raise ValueError(f"razorattention: share={self.share} must be at least 1 (the buffer is N / share).")
        for name, ratio in (("induction", self.induction), ("echo", self.echo)):
            if not 0 <= ratio <= 1:
                raise ValueError(f"razorattention: {name}={ratio} must be a share of the heads, 0 to 1.")
        self._retrieval: list[list[int]] = []
        self._heads = 0

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        layers, _, count = shape(model)
        if self.heads is not None:
            self._retrieval = resolve(self.heads, layers, count)
        else:
            data = Artifact.find(self.name, model, self.artifact, "give heads=").data
            if len(data["induction"]) != layers or any(len(row) != count for row in data["induction"]):
                raise ArtifactError(f"razorattention: the artifact does not fit {layers} layers of {count} KV heads.")
            found = highest(data["induction"], self.induction) | highest(data["echo"], self.echo)
            self._retrieval = [[head for head in range(count) if (layer, head) in found] for layer in range(layers)]
        self._heads = layers * count
        if self.keep is not None:
            self._check(self.keep)

    @property
    def retrieval(self) -> list[list[int]]:
        """The KV heads of every layer that keep everything, once `compress()` has attached the model."""
        return self._retrieval

    def forced(self) -> tuple[int, int]:
        return self.sinks, 0

    def score(self, obs: Observation) -> torch.Tensor:
        """Later entries score higher."""
        return obs.index.float()

    def targets(self, layer: int, layers: int, step: Step, real: list[int], bytes_per_entry: int) -> list[int]:
        """Tokens that stay in a head that is not a retrieval head: sinks and buffer; the compensation token is extra."""
        return [self._own(tokens, self.budget.entries(tokens, bytes_per_entry), step.prefill) for tokens in step.real]

    def _own(self, tokens: int, mean: int, strict: bool) -> int:
        """Sinks and buffer for `tokens` tokens, such that all heads together have `mean` entries on average.

        At least one token stays beside the compensation token, so a budget barely larger than the retrieval heads alone
        need is exceeded by up to two entries (the session warns).
        """
        whole = sum(len(row) for row in self._retrieval)
        others = self._heads - whole
        if self.budget_from_parameters:
            return self.sinks + int(max(self.buffer, tokens / self.share))
        if mean >= tokens:
            return tokens
        if strict and self.keep is None:
            self._check(mean / tokens)
        return max(1, (mean * self._heads - whole * tokens) // max(1, others) - int(self.compensate))

    def _check(self, asked: float) -> None:
        """A share of the entries that the retrieval heads alone exceed is an error."""
        whole = sum(len(row) for row in self._retrieval)
        least = whole / self._heads
        if asked < least:
            raise BudgetError(
                f"razorattention: {whole} of {self._heads} heads keep all tokens, which is more than the budget "
                f"({self.budget}) has; the smallest share possible here is {ceil(1000 * least) / 1000}. Raise it, or "
                "keep fewer heads whole (induction=, echo=, heads=)."
            )

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        valid = torch.ones_like(obs.index, dtype=torch.bool) if obs.valid is None else obs.valid
        tokens = valid & (obs.index >= 0)
        own = replace(obs, valid=tokens) if bool((obs.index < 0).any()) else obs
        self._check_protected(own)
        counts = torch.tensor(obs.targets, device=tokens.device)[:, None]
        kept = best(self.rank(own), counts) & tokens
        kept[:, self._retrieval[obs.layer]] = tokens[:, self._retrieval[obs.layer]]
        dropped = tokens & ~kept
        if not bool(dropped.any()) and not layer.evicted:
            return None
        columns = {name: column for name, column in columns.items() if name != "valid"}  # only real entries stay
        if not self.compensate:
            return [selected(obs.keys, obs.values, columns, from_mask(kept), ragged=True)]
        keys, values, columns, has = folded(obs, columns, dropped, valid & (obs.index < 0))
        if self.paper_code:
            columns.pop("bias")
        return [selected(keys, values, columns, from_mask(torch.cat([kept, has], -1)), ragged=True)]

    def due(self, layer: CompressedLayer) -> bool:
        """Every `fold_every` decoded tokens, if folding is wanted."""
        if not self.fold_on_decode:
            return False
        if "waited" not in layer.state:
            layer.state["waited"] = torch.zeros(layer.parts[-1].lengths.shape[0], dtype=torch.long)
        layer.state["waited"] += 1
        return int(layer.state["waited"][0]) >= self.fold_every

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        layer.state["waited"].zero_()
        parts = self.reduce(layer, obs, {**obs.columns, "index": obs.index})
        if parts is not None:
            layer.store(parts)


def folded(
    obs: Observation, columns: dict[str, torch.Tensor], dropped: torch.Tensor, stand_in: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Append one entry per head: the mean of what is dropped and of what an earlier compensation token stands for.

    ``k' = (N_d k + sum of dropped k) / (N_d + dropped)``, the same for v: as if averaged from scratch.

    Args:
        dropped: tokens that go now, [B, Hkv, n]; `stand_in`: the compensation token of earlier passes.

    Returns:
        keys [B, Hkv, n + 1, D], values, columns [B, Hkv, n + 1], and whether a head has such an entry at all [B, Hkv, 1].
    """
    weights = torch.where(stand_in, 1.0, dropped.float())
    if "bias" in columns:
        weights = torch.where(stand_in, columns["bias"].exp().round(), weights)  # tokens that an entry stands for
    total = weights.sum(-1, keepdim=True)
    share = (weights / total.clamp(min=1))[:, :, None]
    keys, values = (torch.cat([x, (share @ x.float()).to(x.dtype)], 2) for x in (obs.keys, obs.values))
    new = {"index": torch.full_like(total, -1), "bias": total.clamp(min=1).log()}
    if "bias" not in columns:
        columns = {**columns, "bias": torch.zeros_like(weights)}
    extended = {}
    for name, column in columns.items():
        dtype, fill = FILL[name]
        extended[name] = torch.cat([column.to(dtype), new.get(name, torch.full_like(total, fill)).to(dtype)], -1)
    return keys, values, extended, total > 0
