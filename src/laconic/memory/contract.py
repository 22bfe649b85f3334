"""The contract of methods that read a context into soft tokens: a few vectors that stand among a prompt's embeddings."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import BudgetError, SessionError
from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor
from laconic.method import Method
from laconic.seams import Seam


class MemorySeam(Seam):
    """Refuses to be opened: a session sees a whole prompt, and not which part of it is the context."""

    def install(self, restore: ExitStack) -> None:
        names = " and ".join(method.name for method in self.methods)
        raise SessionError(
            f"{names} makes soft tokens of a context before it is part of a prompt. Use laconic.read(model, tokenizer, "
            "text, method), or laconic.Memory.of(model, tokenizer, text, method) and what its inputs() gives in generate()."
        )


@dataclass(kw_only=True)
class MemoryMethod(Method):
    """Compresses a context, cut into segments, to soft tokens; the question stays as it is.

    A subclass gives `build`: its network, whose weights are in the artifact. Soft tokens are ordinary entries of the cache
    once the model has read them, so methods that evict or pack entries go together with this one.

    Args:
        artifact: what `laconic fit NAME` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.

    Raises:
        BudgetError: a budget in tokens or bytes, or a share that the network was not trained for.
    """

    artifact: str | None = None

    claims: ClassVar[frozenset[str]] = frozenset({"memory"})
    seams: ClassVar[tuple[type[Seam], ...]] = (MemorySeam,)
    version: ClassVar[int] = 1
    """Raised when the same artifact would give other soft tokens than before: memories of another version are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is None:
            raise BudgetError(f"{self.name}: {self.budget}: segments have slots in proportion to their tokens; give keep=.")
        self.network: Compressor | None = None
        self.digest = ""
        """Of the artifact's content."""

    def build(self, model: PreTrainedModel, artifact: Artifact) -> Compressor:
        """The network, untrained, as the artifact's facts describe it."""
        raise NotImplementedError(f"{type(self).__name__} must define build().")

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        artifact = Artifact.find(self.name, model, self.artifact)
        self._check_share([float(keep) for keep in artifact.data["keeps"]])
        if self.network is None or self.digest != artifact.digest:
            self.network = artifact.restore(self.build(model, artifact)).to(model.device)
            self.digest = artifact.digest

    def _check_share(self, trained: list[float]) -> None:
        assert self.keep is not None
        if not any(abs(self.keep - keep) < 1e-6 for keep in trained):
            shares = ", ".join(f"{keep:g}" for keep in sorted(trained, reverse=True))
            raise BudgetError(f"{self.name}: keep={self.keep:g}: this artifact was trained for {shares}; use one of these.")

    @torch.no_grad()
    def compress(self, model: PreTrainedModel, ids: list[int]) -> Tensor:
        """Soft tokens [m, d] of a context's token ids, fp32; `attach` came before."""
        assert self.network is not None and self.keep is not None
        return self.network.contexts(model, torch.tensor([ids], device=model.device), self.keep)[0]

    def flops(self, shape: Shape, tokens: int) -> int:
        """What `compress` costs for a context of this many tokens."""
        assert self.network is not None and self.keep is not None
        return self.network.context_flops(shape, tokens, self.keep)
