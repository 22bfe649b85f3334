"""Tasks whose samples are made to a length, which a model's tokenizer counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from laconic.tasks.task import Sample, Task


@dataclass(frozen=True)
class SizedTask(Task):
    """A task whose samples are made to a length.

    Args:
        tokens, tokenizer: length of the samples and what counts it; see `opened`.
    """

    tokens: int = 0
    tokenizer: Any = None

    def opened(self, tokens: int = 0, tokenizer: Any = None, folder: object = None) -> Self:
        return type(self)(self.name, tokens, tokenizer)

    def sample(self, number: int) -> Sample:
        if self.tokenizer is None:
            raise ValueError(
                f"task {self.name}: a length and a tokenizer are needed; call opened(tokens=, tokenizer=) first."
            )
        return self._made(number)

    def _made(self, number: int) -> Sample:
        """The sample of this number, of `tokens` tokens."""
        raise NotImplementedError
