"""Attention Matching: real keys, a bias for the mass they stand for, values by least squares (arXiv 2602.16284)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from laconic import checks
from laconic.cache.layer import CompressedLayer, selected
from laconic.cache.observe import Observation
from laconic.cache.parts.base import Entries, Part
from laconic.cache.replay import Glance, ReplayMethod, strongest_attention
from laconic.method import register
from laconic.ops.leastsq import boxed, ridge
from laconic.ops.select import from_mask

LOW, HIGH = math.exp(-3), math.exp(3)
"""Bounds of the factor on an entry's mass."""
_CELLS = 1 << 20  # logits of one block of queries


@dataclass(frozen=True)
class Reference:
    """The repetition's queries of one layer.

    Attributes:
        queries: [B, Hkv, G, P', D]. `count`: how many of the P' count in each batch row; a short row is filled up.
        new: entries of the pass, the last ones of the layer.
    """

    queries: torch.Tensor
    count: list[int]
    new: int
    scale: float
    softcap: float | None


@register(
    "attention_matching",
    site="cache",
    mechanism="eviction and refitted values, ragged heads",
    source="arXiv 2602.16284",
    query_aware=False,
    inferred="how many entries a head keeps: by the scores of kvzip, one budget over all heads of all layers, where the "
    "release has shares measured once per model; values and mass are pulled to those of the kept entries, not to zero; each "
    "pass refits its own entries; reference queries are those of the repetition, off-policy",
)
@dataclass(kw_only=True)
class AttentionMatching(ReplayMethod):
    """Keep few real keys of a context, and give them the mass and the values with which they say what all of them said.

    The model repeats its context, as in `kvzip`, whose scores say how many entries every head keeps. In each head, with the
    repetition's queries Q, scores ``s = Q K^T / sqrt(d)``, ``E = exp(s - rowmax(s))``, mass ``y = E 1`` and ``A = E / y``:

    1. keys: the t highest ``sqrt(mean_n A_nj^2)``;
    2. bias: ``w = argmin ||E_S w - y||^2`` in [e^-3, e^3], stored as the logit ``b = log w``;
    3. values: ``C = argmin ||softmax(s_S + b) C - A V||^2``.

    What is kept then merges with all later tokens as the whole context would have. The stored values are mixtures; their
    token numbers are those of the keys. Sinks, protected tokens, and entries of earlier passes are kept as they are.

    The cost is that of `kvzip` and of the fits, and the repetition's queries of all layers are held until the cut. Read long
    prompts in chunks (``prefill_chunk_size``): a fit costs the cube of what a head keeps.

    Args:
        over: who competes for the budget: ``"model"`` (all heads of all layers), ``"layer"`` (heads of one layer) or
            ``"head"`` (the same number in every head).
        sinks: first tokens that always stay (4), up to half the budget. Protect a system prompt with ``protect="system"``.
        instruction: asks for the repetition, between the prompt and its replay; used where the session has a tokenizer.
        chunk: most tokens of the prompt that are repeated at once (1,024); None: all. Longer prompts are divided evenly.
        keys: ``"rms"``, as published; or ``"score"``, the entries that `kvzip` would keep.
        fit_bias, fit_values: False leaves out step 2 or 3.
        steps: of projected gradient in step 2 (2).
        queries: most reference queries of a KV head (50,000), evenly spaced.
    """

    keys: Literal["rms", "score"] = "rms"
    fit_bias: bool = True
    fit_values: bool = True
    steps: int = 2
    queries: int = 50_000

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "keys", "rms", "score")
        checks.whole(self, "steps")
        checks.whole(self, "queries", least=1)

    def replayed(self, obs: Observation, glance: Glance) -> torch.Tensor:
        return strongest_attention(obs, glance)

    def reference(self, obs: Observation) -> Reference:
        assert obs.pseudo is not None
        queries = obs.pseudo[0].unflatten(1, (obs.keys.shape[1], -1))
        every = max(1, math.ceil(queries.shape[2] * queries.shape[3] / self.queries))
        count = [math.ceil(n / every) for n in self.spoken(obs)]
        return Reference(queries[:, :, :, ::every].clone(), count, obs.new, obs.scale, obs.softcap)

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        selection = self.select(obs)
        if selection is None:
            return None
        n = obs.keys.shape[2]
        kept = torch.zeros(*obs.keys.shape[:2], n + 1, dtype=torch.bool, device=obs.keys.device)
        kept = kept.scatter_(2, selection.index, True)[..., :n]
        entries = (obs.keys, obs.values, columns)
        (keys, values, columns), kept = self.refit(entries, self.rank(obs), kept, self.reference(obs))
        return [selected(keys, values, columns, from_mask(kept), ragged=True)]

    @torch.no_grad()
    def refit(
        self, entries: Entries, rank: torch.Tensor, kept: torch.Tensor, reference: Reference
    ) -> tuple[Entries, torch.Tensor]:
        keys, values, columns = entries
        values, kept = values.clone(), kept.clone()
        bias = columns["bias"].clone() if "bias" in columns else torch.zeros(rank.shape, device=rank.device)
        score = columns["score"].clone()
        block = rank.abs() < torch.finfo(rank.dtype).max  # neither padding nor what must stay
        block[..., : rank.shape[-1] - reference.new] = False
        for b in range(rank.shape[0]):
            for h in range(rank.shape[1]):
                own = block[b, h].nonzero()[:, 0]
                chosen = kept[b, h, own]
                t = int(chosen.sum())
                if t in (0, len(own)):
                    continue
                head = Head(
                    reference.queries[b, h, :, : reference.count[b]].flatten(0, 1),
                    keys[b, h, own].float(),
                    values[b, h, own].float(),
                    reference.scale,
                    reference.softcap,
                )
                picks = chosen.nonzero()[:, 0]
                if self.keys == "rms":
                    picks = head.strongest(t)
                    # later cuts go by the scores that won: as many of these entries stay as of those that they stand for
                    score[b, h, own[picks]] = score[b, h, own[chosen]].sort(descending=True).values
                    kept[b, h, own] = False
                    kept[b, h, own[picks]] = True
                at = own[picks]
                if self.fit_bias:
                    bias[b, h, at] = head.bias(picks, self.steps)
                if self.fit_values:
                    values[b, h, at] = head.mixtures(picks, bias[b, h, at]).to(values.dtype)
        return (keys, values, {**columns, "score": score, "bias": bias}), kept


class Head:
    """One head: its queries [n, D], and the keys [T, D] and values [T, Dv] of the block that is matched. Logits are made in
    blocks of queries, never n x T."""

    def __init__(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, softcap: float | None):
        self.keys, self.values, self.scale, self.softcap = keys, values, scale, softcap
        self.blocks = [block.float() for block in queries.split(max(16, _CELLS // len(keys)))]
        self.peak, self.mass, self.output = [], [], []
        squares = torch.zeros(len(keys), device=keys.device)
        for block in self.blocks:
            logits = self._logits(block, keys)
            peak = logits.amax(1, keepdim=True)
            weights = (logits - peak).exp()
            mass = weights.sum(1, keepdim=True)
            weights /= mass
            squares += weights.square().sum(0)
            self.peak.append(peak)
            self.mass.append(mass)
            self.output.append(weights @ values)
        self.rms = (squares / len(queries)).sqrt()

    def strongest(self, t: int) -> torch.Tensor:
        """The t keys of the highest root mean square attention, the strongest first."""
        return self.rms.topk(t).indices

    def bias(self, picks: torch.Tensor, steps: int) -> torch.Tensor:
        """log w of the factors w [t] with which the picked keys have the mass of all."""
        gram: torch.Tensor | float = 0.0
        target: torch.Tensor | float = 0.0
        for logits, peak, mass in zip(self._among(picks), self.peak, self.mass, strict=True):
            weights = (logits - peak).exp().double()
            gram, target = gram + weights.T @ weights, target + weights.T @ mass[:, 0].double()
        assert isinstance(gram, torch.Tensor) and isinstance(target, torch.Tensor)
        return boxed(gram, target, LOW, HIGH, steps).log().float()

    def mixtures(self, picks: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Values [t, Dv] with which the picked keys say what all of them said."""
        gram: torch.Tensor | float = 0.0
        target: torch.Tensor | float = 0.0
        for logits, output in zip(self._among(picks), self.output, strict=True):
            weights = (logits + bias).softmax(1).double()
            gram, target = gram + weights.T @ weights, target + weights.T @ output.double()
        assert isinstance(gram, torch.Tensor) and isinstance(target, torch.Tensor)
        return ridge(gram, target, self.values[picks]).float()

    def _among(self, picks: torch.Tensor) -> Iterator[torch.Tensor]:
        keys = self.keys[picks]
        return (self._logits(block, keys) for block in self.blocks)

    def _logits(self, block: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        logits = block @ keys.T * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
