"""Cartridges: keys and values trained for one document by self-study (arXiv 2506.06266)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import ArtifactError
from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.memory.contract import PrefixMethod
from laconic.memory.prefix import Prefix
from laconic.method import register
from laconic.methods.memory.cartridge.network import TrainedPrefix


@register(
    "cartridge",
    site="memory",
    mechanism="trained keys and values",
    source="arXiv 2506.06266",
    query_aware=False,
    training="trained",
    inferred="the document stands in the user's turn, as laconic's prompts have it, and not in a system message",
)
@dataclass(kw_only=True)
class Cartridge(PrefixMethod):
    """The cache itself is the parameter: a few entries for every layer, trained to stand for one document.

    The training ends when the frozen model answers from them as it does with the whole document in view.

    Args:
        artifact: what `laconic fit cartridge --data DOCUMENT` wrote: a file, a folder or a Hub id. It has the budget, too.

    Raises:
        ArtifactError: none given, or another document.
    """

    fixed_budget: ClassVar[bool] = True
    default_keep: ClassVar[float | None] = None

    def build(self, model: PreTrainedModel, artifact: Artifact) -> TrainedPrefix:
        self.facts = artifact.data
        stack = family_of(model).stack(model)
        shape = Shape.of(model, stack)
        return TrainedPrefix(
            torch.zeros(shape.layers, shape.kv_heads, self.facts["entries"], shape.head_dim), frozen=self.facts["frozen"]
        )

    def _check_share(self, trained: list[float]) -> None:
        if self.keep is not None:
            super()._check_share(trained)

    @torch.no_grad()
    def compress(self, model: PreTrainedModel, ids: list[int] | Tensor, opening: Sequence[int] = ()) -> Prefix:
        if list(ids) != self.facts["ids"] or list(opening) != self.facts["opening"]:
            raise ArtifactError(
                f"{self.name}: this artifact was trained for another document, of {len(self.facts['ids']):,} tokens (here: "
                f"{len(ids):,}), or for another system message; train one with `laconic fit {self.name} --data FILE`."
            )
        found: Prefix = self.network.prefix()
        return found

    @property
    def spent(self) -> float:
        return float(self.facts["seconds"])

    def flops(self, shape: Shape, tokens: int, opening: int = 0) -> int:
        return int(self.facts["flops"])
