"""What a lens is to the rest of laconic: a read-only method that reads something in single visual tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel


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
