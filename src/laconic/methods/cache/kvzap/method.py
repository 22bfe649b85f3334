"""KVzap: KVzip+'s scores read off the hidden state, so that entries go as they come, without a replay (arXiv 2601.07891)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from laconic import checks
from laconic.artifact import Artifact
from laconic.cache.contract import CacheMethod
from laconic.cache.hidden import Hidden, HiddenSeam
from laconic.cache.layer import CompressedLayer, selected
from laconic.cache.observe import Observation
from laconic.cache.parts.base import Part
from laconic.cache.seam import EntriesSeam
from laconic.errors import ArtifactError, BudgetError
from laconic.method import register
from laconic.methods.cache.kvzap.network import Surrogate, sizes
from laconic.ops.select import Selection, from_mask, top_k, top_k_across_heads
from laconic.seams import Seam

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register(
    "kvzap",
    site="cache",
    mechanism="eviction, ragged heads",
    source="arXiv 2601.07891; NVIDIA kvpress",
    query_aware=False,
    training="calibration",
    inferred="while decoding, entries that have left the window are judged and freed 64 tokens at a time; a threshold for a "
    "wished share is read off the calibration texts; with a budget the heads of all layers compete, as in kvzip",
)
@dataclass(kw_only=True)
class KVzap(CacheMethod):
    """Predict from the hidden state of a token how much a repetition of the text would need its entries; let go those below.

    KVzip+ has the model repeat its context and scores entries by what the repetition takes from them, s+. Its verdict is
    largely written in what the attention reads, so a linear map or a small MLP per layer (`Surrogate`) predicts
    ``log s+`` of every KV head as the token passes. An entry goes once it is older than a window and its prediction
    lies below a threshold: how much stays follows from the text. This works while decoding, too, and costs next to nothing.

    With a budget (keep=, tokens= or bytes=) the best entries stay instead, and only prompts are cut.

    Args:
        threshold: on the prediction, a natural logarithm; equal ones stay. None: the one for `share`.
        share: of the entries of the calibration texts, newest ones aside, that the threshold left there (0.25). What is left
            of another text is in `Stats.achieved`.
        window: newest tokens that always stay (128); with a budget, up to half of it.
        every: tokens from one judgement to the next while decoding (64); so many more than the window wait for it.
        over: who competes for a budget: ``"model"`` (all heads of all layers), ``"layer"`` (heads of one layer) or
            ``"head"`` (the same number in every head).
        artifact: what `laconic fit kvzap` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.

    Raises:
        BudgetError: a threshold beside a budget.
        ArtifactError: none for this model.
    """

    threshold: float | None = None
    share: float = 0.25
    window: int = 128
    every: int = 64
    over: Literal["model", "layer", "head"] = "model"
    artifact: str | None = None
    ragged = True
    default_keep: ClassVar[float | None] = None
    seams: ClassVar[tuple[type[Seam], ...]] = (EntriesSeam, HiddenSeam)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.between(self, "share")
        checks.whole(self, "window")
        checks.whole(self, "every", least=1)
        checks.one_of(self, "over", "model", "layer", "head")
        if self.threshold is not None:
            if math.isnan(self.threshold):
                raise ValueError("kvzap: threshold=nan: give a number, the logarithm of a score, such as -7.")
            if not self.budget_from_parameters:
                raise BudgetError(f"kvzap: threshold={self.threshold} decides how much stays; leave out {self.budget}.")
        self._surrogate: Surrogate | None = None
        self._least = 0.0

    @property
    def cuts_late(self) -> bool:
        return self.over == "model" and not self.budget_from_parameters

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        surrogate = Surrogate.of(artifact).to(model.device)
        layers, size, heads = sizes(model)
        found = surrogate.leave.shape[0], (surrogate.enter if surrogate.width else surrogate.leave).shape[1]
        if (*found, surrogate.leave.shape[-1]) != (layers, size, heads):
            raise ArtifactError(
                f"this artifact of kvzap is for {found[0]} layers of {surrogate.leave.shape[-1]} KV heads that read "
                f"{found[1]} numbers; the model has {layers} of {heads} that read {size}. Make one for it with "
                "`laconic fit kvzap`."
            )
        self._surrogate = surrogate
        if self.budget_from_parameters:
            threshold = _calibrated(artifact, self.share) if self.threshold is None else self.threshold
            self._least = float(torch.tensor(threshold).exp())

    def describe(self, layer: int, hidden: Hidden) -> dict[str, torch.Tensor]:
        """s+ of tokens that are decoded, [B, Hkv, T]; scores of prompts come through `columns`."""
        return {} if self._surrogate is None else {"score": self._predicted(layer, hidden.normalised)}

    @torch.no_grad()
    def _predicted(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """x [B, T, hidden] -> s+, not its logarithm, so that 0 stands for entries that were stored unseen, [B, Hkv, T]."""
        assert self._surrogate is not None
        return self._surrogate(x.float(), layer).exp().mT

    def columns(self, obs: Observation) -> dict[str, torch.Tensor]:
        return {"score": self.score(obs)}

    def score(self, obs: Observation) -> torch.Tensor:
        return obs.once("score", lambda: self._scored(obs))

    def _scored(self, obs: Observation) -> torch.Tensor:
        assert obs.hidden is not None
        new = self._predicted(obs.layer, obs.hidden.normalised[:, : obs.new])
        past = obs.keys.shape[2] - obs.new
        if not past:
            return new
        before = obs.columns.get("score")  # what was stored while held had none
        return torch.cat([new.new_zeros(*new.shape[:2], past) if before is None else before, new], 2)

    # -- by a threshold --------------------------------------------------------------------------------------------
    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        if not self.budget_from_parameters:
            return super().reduce(layer, obs, columns)
        stays = self._judged(obs, columns["score"])
        return None if bool(stays.all()) else [selected(obs.keys, obs.values, columns, from_mask(stays), ragged=True)]

    def due(self, layer: CompressedLayer) -> bool:
        return self.budget_from_parameters and layer.seen % self.every == 0

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        stays = self._judged(obs, obs.columns["score"])
        if not bool(stays.all()):
            layer.keep((obs.keys, obs.values, {**obs.columns, "index": obs.index}), stays)

    def _judged(self, obs: Observation, score: torch.Tensor) -> torch.Tensor:
        """Which entries stay, [B, Hkv, n]."""
        stays = (score >= self._least) | (obs.index >= obs.step.start + obs.step.length - self.window)
        if obs.protected is not None:
            stays |= obs.protected
        return stays if obs.valid is None else stays & obs.valid

    # -- by a budget -----------------------------------------------------------------------------------------------
    def forced(self) -> tuple[int, int]:
        return 0, self.window

    def choose(self, rank: torch.Tensor, obs: Observation) -> Selection:
        if self.over == "head":
            return top_k(rank, obs.targets)
        return top_k_across_heads(rank, obs.targets, [0] * len(obs.targets))


def _calibrated(artifact: Artifact, share: float) -> float:
    """The threshold that left `share` of the calibration texts' entries, between the two nearest that were measured."""
    measured = artifact.data.get("thresholds")
    if not measured:
        raise ArtifactError(
            "this artifact of kvzap has no thresholds; give threshold=, or make one with `laconic fit kvzap`."
        )
    at = min(max(share * 100 - 1, 0), len(measured) - 1)  # for shares of 1, 2, ... 99 %
    low = int(at)
    high = min(low + 1, len(measured) - 1)
    return float(measured[low] + (at - low) * (measured[high] - measured[low]))
