"""Training of gist tokens: the frozen model answers from their keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transformers import PreTrainedModel

from laconic.fit.memory import PrefixFit
from laconic.memory.summary import SummaryTokens


@dataclass(kw_only=True)
class GistFit(PrefixFit):
    """The encoder and the gist's embedding. `segment` has no part in it."""

    method: ClassVar[str] = "gist"

    def network(self, model: PreTrainedModel) -> SummaryTokens:
        return SummaryTokens(model)
