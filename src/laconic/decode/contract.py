"""The contract of methods that shorten what a model writes, or would write, before its answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.decode.seam import ThoughtSeam
from laconic.decode.thought import Thought
from laconic.errors import BudgetError
from laconic.families import family_of
from laconic.families.replaced import decoder_weights, replaced
from laconic.method import Method
from laconic.seams import Seam


@dataclass(kw_only=True)
class ReasoningMethod(Method):
    """Acts between a prompt and its answer. The mark is what the model writes when its thinking is over.

    Its parameters say how much is thought; it takes no budget of entries, and goes together with methods for the cache.

    Args:
        mark: text that ends the thinking; None: what the model or its vocabulary says, see `laconic.decode.marks`.

    Raises:
        BudgetError: keep=, tokens= or bytes=.
    """

    mark: str | None = None

    claims: ClassVar[frozenset[str]] = frozenset({"thinking"})
    seams: ClassVar[tuple[type[Seam], ...]] = (ThoughtSeam,)
    default_keep: ClassVar[float | None] = None
    takes_budget: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budget_from_parameters:
            raise BudgetError(
                f"{self.name} shortens thinking, which has no budget of entries; drop {self.budget}, and see "
                f"`laconic methods {self.name}` for its own parameters."
            )

    def opening(self, tokenizer: Any) -> Sequence[int]:
        """Tokens that come right after every prompt."""
        return ()

    def over(self, thought: Thought) -> Tensor:
        """Rows whose thinking ends before their next token, [B]; asked before every token of a row that thinks."""
        return torch.zeros_like(thought.closed)

    def running(self, model: PreTrainedModel) -> AbstractContextManager[Any]:
        """While the returned context is open, `model` runs with the method's weights, if it has any."""
        return nullcontext()


@dataclass(kw_only=True)
class TrainedReasoning(ReasoningMethod):
    """A reasoning method that was trained: the model runs with the weights in its artifact.

    Args:
        artifact: what `laconic fit NAME` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for these
            weights.
    """

    artifact: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.trained: Artifact | None = None

    def attach(self, model: PreTrainedModel) -> None:
        self.trained = Artifact.find(self.name, model, self.artifact)

    def running(self, model: PreTrainedModel) -> AbstractContextManager[Any]:
        assert self.trained is not None
        return replaced(family_of(model).stack(model), decoder_weights(self.trained.tensors))


class Latents(NamedTuple):
    """The next step of rows that think.

    Attributes:
        vectors: the next inputs of the model, [B, d]. `wordless`: rows that take theirs, [B]; the others write.
        over: rows whose thinking ends, [B].
    """

    vectors: Tensor
    wordless: Tensor
    over: Tensor


@runtime_checkable
class ThinksWithoutWords(Protocol):
    """A reasoning method that feeds vectors to the model in the place of tokens. Each takes one pass, and a placeholder
    stands for it in what `generate()` returns."""

    def latents(self, thought: Thought, hidden: Tensor, logits: Tensor) -> Latents:
        """The next step, from what the model says after the last one.

        Args:
            hidden: last hidden states after the final norm, [B, d]. `logits`: [B, V].
        """
        ...
