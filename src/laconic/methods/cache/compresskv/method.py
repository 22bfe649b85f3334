"""CompressKV: a few heads per layer that look at whole answers choose one token set for all (arXiv 2508.02401)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.cache.contract import CacheMethod
from laconic.cache.heads import HeadList, resolve, shape
from laconic.cache.observe import Observation
from laconic.cache.scores import check_window, pool
from laconic.errors import ArtifactError
from laconic.method import register
from laconic.ops.attend import attention_rows


@register(
    "compresskv",
    site="cache",
    mechanism="eviction, selected heads, budgets by layer",
    source="arXiv 2508.02401",
    query_aware=True,
    training="calibration",
    inferred="no layer is given more entries than there are tokens; below 32 entries a layer the floor is the budget itself",
)
@dataclass(kw_only=True)
class CompressKV(CacheMethod):
    """The layer's few semantic retrieval heads vote; all KV heads keep the tokens that they choose.

    Which heads vote, and how much of the budget each layer gets (in proportion to how far its output moves when its cache
    is cut), was measured once per model: `laconic fit compresskv`.

    Args:
        artifact: what `laconic fit compresskv` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.
        heads: query heads of every layer instead, best first, such as ``"L0H1+L1H3"`` or ``"all"``; see `heads.HeadList`.
        layer_errors: with `heads`: one error per layer, adding up to 1; None gives every layer the same.
        first_k: heads of each layer that vote (4), or all that the artifact lists when they are fewer.
        window: last queries that vote; they stay (8).
        kernel: width of the average pooling, odd (5).
        floor: entries that every layer gets (32), up to the mean budget.
    """

    artifact: str | None = None
    heads: HeadList | None = None
    layer_errors: Sequence[float] | None = None
    first_k: int = 4
    window: int = 8
    kernel: int = 5
    floor: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.name, self.window, self.kernel)
        for name, value in (("first_k", self.first_k), ("floor", self.floor)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"compresskv: {name}={value!r} must be a whole number of at least 1.")
        if self.artifact is not None and (self.heads is not None or self.layer_errors is not None):
            raise ValueError("compresskv: give artifact=, or heads= and layer_errors=, not both.")
        self._heads: list[list[int]] = []
        self._errors: tuple[float, ...] | None = None

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        layers, count, _ = shape(model)
        heads, errors = self.heads, self.layer_errors
        if heads is None:
            data = Artifact.find(self.name, model, self.artifact, "give heads=").data
            heads, errors = data["heads"], data["layer_errors"] if errors is None else errors
        self._heads = [row[: self.first_k] for row in resolve(heads, layers, count)]
        if not all(self._heads):
            raise ArtifactError("compresskv: every layer needs at least one head that votes.")
        if errors is not None and len(errors) != layers:
            raise ArtifactError(f"compresskv: {len(errors)} layer errors are given, but the model has {layers} layers.")
        if errors is not None and (min(errors) < 0 or abs(sum(errors) - 1) > 0.01):
            raise ArtifactError(f"compresskv: layer errors are shares and add up to 1; these add up to {sum(errors):.3f}.")
        self._errors = None if errors is None else tuple(float(e) for e in errors)

    def forced(self) -> tuple[int, int]:
        return 0, self.window

    def layer_entries(self, layer: int, layers: int, mean: int, seen: int) -> int:
        return mean if self._errors is None else budgets(self._errors, mean, self.floor, seen)[layer]

    def score(self, obs: Observation) -> torch.Tensor:
        """The same scores for all KV heads (step D): [B, Hkv, n]."""
        w = min(self.window, obs.new)
        votes = sum(self._row(obs, head, w) for head in self._heads[obs.layer])
        assert isinstance(votes, torch.Tensor)
        # average pooling is linear, so the mean over heads may come first
        context, own = (votes / len(self._heads[obs.layer])).split([votes.shape[-1] - w, w], -1)
        pooled = [pool(part, self.kernel, "avg") for part in (context, own) if part.shape[-1]]
        return torch.cat(pooled, -1)[:, None].expand(obs.keys.shape[:3])

    def _row(self, obs: Observation, head: int, w: int) -> torch.Tensor:
        """Attention of the last w queries of one query head, summed over them: [B, n]."""
        kv = slice(head // obs.group, head // obs.group + 1)
        bias = None if obs.bias is None else obs.bias[:, kv]
        queries = obs.queries[:, head : head + 1, obs.new - w :]
        rows = attention_rows(queries, obs.keys[:, kv], obs.scale, bias=bias, softcap=obs.softcap)[:, 0, 0]
        if obs.step.valid is not None:  # padding does not vote
            rows = rows.masked_fill(~obs.step.valid[:, obs.new - w :, None], 0.0)
        return rows.sum(1)


@lru_cache(maxsize=256)
def budgets(errors: tuple[float, ...], mean: int, floor: int = 32, seen: int | None = None) -> tuple[int, ...]:
    """Entries per layer (step C): `floor` for each, the rest in proportion to the errors, at most three times the mean.

    Args:
        errors: how far each layer's output moves when its cache is cut, as shares of all layers' (they add up to 1).
        mean: entries per layer on average; the sum is exactly ``mean * layers``.
        floor: least entries of a layer, cut to `mean`.
        seen: tokens there are: no layer gets more.
    """
    layers, low, high = len(errors), min(floor, mean), 3 * mean if seen is None else max(mean, min(3 * mean, seen))
    total = mean * layers
    entries = [min(high, max(low, low + round(e * (total - low * layers)))) for e in errors]
    falling = sorted(range(layers), key=lambda i: (-errors[i], i))
    while (gap := total - sum(entries)) != 0:
        step, order = (1, falling) if gap > 0 else (-1, falling[::-1])
        movable = [i for i in order if (entries[i] < high if step > 0 else entries[i] > low)]
        for i in movable[: abs(gap)]:
            entries[i] += step
        if not movable:
            break
    return tuple(entries)
