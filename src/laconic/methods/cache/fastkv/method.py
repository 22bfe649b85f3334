"""FastKV: the whole prompt up to a middle layer, then only the most attended tokens travel on (arXiv 2502.01068)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation
from laconic.cache.scores import Pooling, check_window, pool
from laconic.errors import BudgetError
from laconic.method import register
from laconic.ops.select import pick
from laconic.step import Step


@register(
    "fastkv",
    site="cache",
    mechanism="eviction, token-selective propagation",
    source="arXiv 2502.01068",
    query_aware=True,
    inferred="the selection layer defaults to half depth (the paper chooses it per model: 15 of 32)",
)
@dataclass(kw_only=True)
class FastKV(CacheMethod):
    """Select tokens once at a middle layer; later layers run on them alone. Every layer stores its own selection.

    The two rates are independent: `tsp_rate` shortens prefill, `keep` the cache. A layer stores ``int(N * keep)`` entries up
    to the selection layer, ``int(int(N * tsp_rate) * keep / tsp_rate)`` after it, chosen by scores like SnapKV's.

    Args:
        keep: retention rate of the cache (0.1).
        tsp_rate: share of the tokens that travels on (0.2); None means 0.2, or 1 when ``keep=1`` (neutral).
        tsp_tokens: a fixed number of tokens instead (the paper's constant mode: 2048).
        tsp_layer: selection layer from 0; None means half depth, ``layers // 2 - 1``.
        artifact: take the selection layer from what `laconic fit fastkv` wrote instead: a file, a shipped name, or a Hub id.
        window: last queries that vote; they stay and travel on (8).
        kernel, pooling: max pooling of width 7 per query head, before the sum over the group.
    """

    tsp_rate: float | None = None
    tsp_tokens: int | None = None
    tsp_layer: int | None = None
    artifact: str | None = None
    window: int = 8
    kernel: int = 7
    pooling: Pooling = "max"

    claims: ClassVar[frozenset[str]] = frozenset({"cache.entries", "stream"})
    default_keep: ClassVar[float] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.window, self.kernel)
        if self.tsp_rate is not None and not 0 < self.tsp_rate <= 1:
            raise BudgetError(f"fastkv: tsp_rate={self.tsp_rate} must be in (0, 1].")
        if self.tsp_tokens is not None and self.tsp_tokens < 1:
            raise BudgetError(f"fastkv: tsp_tokens={self.tsp_tokens} must be at least 1.")
        if self.artifact is not None and self.tsp_layer is not None:
            raise ValueError("fastkv: give tsp_layer= or artifact=, not both.")
        self._rate = self.tsp_rate or (1.0 if self.budget.neutral else 0.2)
        self._layer = self.tsp_layer

    def attach(self, model: PreTrainedModel) -> None:
        if self.artifact is not None and not self.neutral:
            self._layer = int(Artifact.find(self.name, model, self.artifact).data["tsp_layer"])

    @property
    def neutral(self) -> bool:
        return self.budget.neutral and self._rate == 1 and self.tsp_tokens is None

    def _selection_layer(self, depth: int) -> int | None:
        """The layer whose attention selects, of `depth` decoder layers; None when all tokens travel on."""
        layer = depth // 2 - 1 if self._layer is None else self._layer
        if not 0 <= layer < depth:
            raise BudgetError(f"fastkv: tsp_layer={self._layer} is not a layer of this model (0 .. {depth - 1}).")
        return None if self._rate == 1 and self.tsp_tokens is None else layer

    def shortens_from(self, layers: int) -> int | None:
        layer = self._selection_layer(layers)
        return None if layer is None else layer + 1

    def _travellers(self, tokens: int) -> int:
        """How many of `tokens` travel on."""
        if self.tsp_tokens is not None:
            return min(tokens, self.tsp_tokens)
        return min(tokens, max(1, int(tokens * self._rate + 1e-6)))

    def forced(self) -> tuple[int, int]:
        return 0, self.window

    def targets(self, layer: int, layers: int, step: Step, real: list[int], bytes_per_entry: int) -> list[int]:
        if step.kept is None or self.keep is None or self.tsp_tokens is not None:
            return super().targets(layer, layers, step, real, bytes_per_entry)
        rate = min(1.0, self.keep / self._rate)  # deep layers keep about `keep` of the whole prompt, too
        after = [int(self._travellers(tokens) * rate + 1e-6) for tokens in step.real]
        return [max(1, min(count, target)) for count, target in zip(real, after, strict=True)]

    def score(self, obs: Observation) -> torch.Tensor:
        rows = obs.window(self.window)
        w, n = rows.shape[3], rows.shape[4]
        context, own = rows.sum(3).split([n - w, w], -1)
        parts = [pool(part, self.kernel, self.pooling) for part in (context, own) if part.shape[-1]]
        return torch.cat(parts, -1).sum(2)

    def stream(self, obs: Observation) -> torch.Tensor | None:
        if obs.decoder_layer != self._selection_layer(obs.depth):
            return None
        valid = obs.step.valid
        added = [obs.new] * obs.keys.shape[0] if valid is None else valid.sum(-1).tolist()
        counts = [self._travellers(tokens) for tokens in added]
        if counts == added:
            return None
        votes = self.score(obs)[..., -obs.new :].sum(1)
        place = torch.arange(obs.new, device=votes.device)
        recent = torch.tensor([min(self.window, count // 2 + 1) for count in counts], device=votes.device)[:, None]
        votes = votes.masked_fill(place >= obs.new - recent, torch.finfo(votes.dtype).max)
        return pick(self._with_protected(votes, obs, counts), counts, valid)

    def _with_protected(self, votes: torch.Tensor, obs: Observation, counts: list[int]) -> torch.Tensor:
        """Protected tokens travel on, and so does the last one, whose output is the answer's first token."""
        must = torch.zeros_like(votes, dtype=torch.bool)
        must[:, -1] = True if obs.step.valid is None else obs.step.valid[:, -1]
        if obs.protected is not None:
            must |= obs.protected[:, 0, -obs.new :]
        for needed, count in zip(must.sum(-1).tolist(), counts, strict=True):
            if needed > count:
                raise BudgetError(
                    f"fastkv: {needed} tokens must travel on (protected ones and the last) but only {count} may. "
                    "Raise tsp_rate or tsp_tokens, or protect less."
                )
        return votes.masked_fill(must, float("inf"))
