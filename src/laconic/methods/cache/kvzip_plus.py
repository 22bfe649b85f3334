"""KVzip+: the repetition's attention, weighed by what an entry adds to the hidden state that reads it (arXiv 2601.07891)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from laconic import checks
from laconic.cache.hidden import HiddenSeam
from laconic.cache.observe import Observation
from laconic.cache.replay import Glance, ReplayMethod, strongest_contribution
from laconic.cache.seam import EntriesSeam
from laconic.families import family_of
from laconic.method import register
from laconic.seams import Seam

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@register(
    "kvzip_plus",
    site="cache",
    mechanism="eviction, ragged heads",
    source="arXiv 2601.07891; NVIDIA kvpress",
    query_aware=False,
    inferred="the replay is that of kvzip: in the pass that reads the prompt, chunk by chunk where it is long",
)
@dataclass(kw_only=True)
class KVzipPlus(ReplayMethod):
    """KVzip, with an entry's attention weighed by how far its value moves the hidden state of the token that reads it.

    ``s(j) = max over the replayed tokens t and the query heads h of a KV head of A_h[t, j] ||W_O^h v_j|| / ||x_t||``, with
    the head's own slice of the output projection. Everything else is as in `kvzip`, whose cost it has.

    Args:
        over: who competes for the budget: ``"model"`` (all heads of all layers, as published), ``"layer"`` (heads of one
            layer) or ``"head"`` (the same number in every head).
        sinks: first tokens that always stay (4), up to half the budget. Protect a system prompt with ``protect="system"``.
        instruction: asks for the repetition, between the prompt and its replay; used where the session has a tokenizer.
        chunk: most tokens of the prompt that are repeated at once (1,024); None: all. Longer prompts are divided evenly.
        norm_of: what x is: ``"input"`` of the attention, after the layer's norm, as in the released code; or the
            ``"residual"`` stream before it, as in the paper. After the norm the length of x hardly varies.
    """

    norm_of: Literal["input", "residual"] = "input"

    seams: ClassVar[tuple[type[Seam], ...]] = (EntriesSeam, HiddenSeam)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(self, "norm_of", "input", "residual")
        self._grams: list[torch.Tensor] = []

    def attach(self, model: PreTrainedModel) -> None:
        super().attach(model)
        if not self.neutral:
            family = family_of(model)
            self._grams = [family.output_gram(layer) for layer in family.layers(model)]

    def replayed(self, obs: Observation, glance: Glance) -> torch.Tensor:
        assert obs.hidden is not None
        x = obs.hidden.normalised if self.norm_of == "input" else obs.hidden.residual
        return strongest_contribution(obs, glance, x[:, obs.new :], self._grams[obs.decoder_layer])
