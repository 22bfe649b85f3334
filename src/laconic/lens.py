"""What a lens is to the rest of laconic: a read-only method that finds something in tokens, in codes or in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import SessionError
from laconic.method import Method
from laconic.seams import Seam


class LensSeam(Seam):
    """Refuses to be opened: a lens changes nothing."""

    def install(self, restore: ExitStack) -> None:
        names = " and ".join(method.name for method in self.methods)
        raise SessionError(
            f"{names} is a lens: it looks, and changes no model. Use its look(), or `laconic inspect --lens NAME`."
        )


@dataclass(kw_only=True)
class LensMethod(Method):
    """A method that looks and changes nothing; it has no budget. A subclass gives `look`."""

    seams: ClassVar[tuple[type[Seam], ...]] = (LensSeam,)
    default_keep: ClassVar[float | None] = 1.0
    needs_model: ClassVar[bool] = False
    """Whether it looks at a model, which is loaded for it."""

    def look(self, model: Any, tokenizer: Any, text: str | None) -> dict[str, Any]:
        """What it finds, as plain values.

        Args:
            model, tokenizer: None where `needs_model` is False.
            text: what the user gave as context, if anything.
        """
        raise NotImplementedError(f"{type(self).__name__} must define look().")


class TokenReading(Protocol):
    """What was read in one visual token.

    Attributes:
        token: its place in the prompt.
        words, cosines: the nearest words and how near they are, the nearest first.
        kind: class of the token, None where the classes are not known.
    """

    token: int
    words: Any
    cosines: Any
    kind: str | None


@runtime_checkable
class TokenReader(Protocol):
    """A method whose class reads visual tokens; `laconic inspect --lens NAME` shows what it finds."""

    @classmethod
    def read_tokens(
        cls, model: PreTrainedModel, tokenizer: Any, inputs: Mapping[str, Tensor], file: str | None
    ) -> tuple[Sequence[TokenReading], list[str]]:
        """Readings of every visual token of one prompt, and what the user has to be told.

        Args:
            inputs: of the model, one sequence.
            file: what tells the classes of this model's tokens; None: what is shipped for it, if anything.

        Raises:
            LaconicError: no such file, or one that was made for another model.
        """
