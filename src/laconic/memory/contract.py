"""The contracts of methods that read a context into a memory: soft tokens, which stand among a prompt's embeddings, or a
prefix, keys and values that stand in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError, SessionError
from laconic.measure.cost import Shape
from laconic.memory.lora import adapt, merge
from laconic.memory.prefix import Prefix, check_holds_prefixes
from laconic.method import Method
from laconic.prompts.text import PromptError
from laconic.seams import Seam

_KINDS = ("images", "a context of text alone")


class MemorySeam(Seam):
    """Refuses to be opened: a session sees a whole prompt, and not which part of it is the context."""

    def install(self, restore: ExitStack) -> None:
        names = " and ".join(method.name for method in self.methods)
        raise SessionError(
            f"{names} makes a memory of a context before it is part of a prompt. Use laconic.read(model, tokenizer, "
            "text, method), or laconic.Memory.of(model, tokenizer, text, method) and what its inputs() gives in generate()."
        )


@dataclass(kw_only=True)
class MemoryMethod(Method):
    """Compresses a context to a memory; the question stays as it is.

    A subclass gives `build`: its network, whose weights are in the artifact. This class makes soft tokens. They are ordinary
    entries of the cache once the model has read them, so methods that evict or pack entries go together with this one.

    Args:
        artifact: what `laconic fit NAME` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.

    Raises:
        BudgetError: a budget in tokens or bytes, or a share that the network was not trained for.
    """

    artifact: str | None = None

    claims: ClassVar[frozenset[str]] = frozenset({"memory"})
    seams: ClassVar[tuple[type[Seam], ...]] = (MemorySeam,)
    reads: ClassVar[str] = "text"
    """What a context is made of: "text", "images", or "text or images", never both at once."""
    version: ClassVar[int] = 1
    """Raised when the same artifact would give other soft tokens than before: memories of another version are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is None and not self.fixed_budget:
            raise BudgetError(f"{self.name}: {self.budget}: segments have slots in proportion to their tokens; give keep=.")
        self.network: Any = None
        self.digest = ""
        """Of the artifact's content."""

    def build(self, model: PreTrainedModel, artifact: Artifact) -> nn.Module:
        """The network, untrained, as the artifact's facts describe it: a `Compressor` here."""
        raise NotImplementedError(f"{type(self).__name__} must define build().")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._check_share([float(keep) for keep in artifact.data["keeps"]])
        if self.network is None or self.digest != artifact.digest:
            network, rank = self.build(model, artifact), artifact.data.get("rank")
            network = merge(artifact.restore(adapt(network, rank))) if rank else artifact.restore(network)
            self.network = network.to(model.device)
            self.digest = artifact.digest

    def _check_share(self, trained: list[float]) -> None:
        assert self.keep is not None
        if not any(abs(self.keep - keep) < 1e-6 for keep in trained):
            shares = ", ".join(f"{keep:g}" for keep in sorted(trained, reverse=True))
            raise BudgetError(f"{self.name}: keep={self.keep:g}: this artifact was trained for {shares}; use one of these.")

    @torch.no_grad()
    def compress(self, model: PreTrainedModel, ids: list[int] | Tensor, opening: Sequence[int] = ()) -> Tensor | Prefix:
        """What stands for a context in a prompt that begins with the ids `opening`. `attach` came before.

        Args:
            ids: of the context; or its embeddings [n, d], where it shows images.

        Returns:
            soft tokens [m, d], fp32, or a prefix of one row.
        """
        found: Tensor = self.network.contexts(model, _row(model, ids), self.keep)[0]
        return found

    def check_reads(self, images: bool) -> None:
        """Refuse a context that is not of the kind that this method reads.

        Args:
            images: it shows images; else it is text.
        """
        if ("images" if images else "text") not in self.reads:
            raise PromptError(f"{self.name} makes a memory of {self.reads}; it does not go with {_KINDS[not images]}.")

    @property
    def spent(self) -> float:
        """Seconds that a training for this very context took; 0 where one training serves all contexts."""
        return 0.0

    def flops(self, shape: Shape, tokens: int, opening: int = 0) -> int:
        """What `compress` costs for a context and an opening of this many tokens."""
        cost: int = self.network.context_flops(shape, tokens, self.keep)
        return cost


@dataclass(kw_only=True)
class PrefixMethod(MemoryMethod):
    """Compresses a context to keys and values for every layer, which the question finds in the cache.

    `build` gives a `PrefixCompressor`. Methods that pack entries pack these, too; those that evict leave them alone.
    """

    def attach(self, model: PreTrainedModel) -> None:
        check_holds_prefixes(model, self.name)
        super().attach(model)

    @torch.no_grad()
    def compress(self, model: PreTrainedModel, ids: list[int] | Tensor, opening: Sequence[int] = ()) -> Prefix:
        before = torch.tensor(list(opening), dtype=torch.long, device=model.device)
        made: Prefix = self.network(model, before, _row(model, ids), self.keep)
        return made

    def flops(self, shape: Shape, tokens: int, opening: int = 0) -> int:
        cost: int = self.network.flops(shape, opening, tokens, self.keep)
        return cost


def _row(model: PreTrainedModel, ids: list[int] | Tensor) -> Tensor:
    """A batch of one context: ids [1, n], or embeddings [1, n, d]."""
    return ids[None] if isinstance(ids, Tensor) else torch.tensor([ids], dtype=torch.long, device=model.device)
