"""The contract of methods that shorten the text of a prompt: they say which of its pieces stay."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from laconic.method import Method
from laconic.seams import Seam
from laconic.shortening.pieces import Pieces, words
from laconic.shortening.seam import TextSeam
from laconic.shortening.source import Source

if TYPE_CHECKING:
    from laconic.shortening.shorten import Shortened


@dataclass(kw_only=True)
class PromptMethod(Method):
    """A method that shortens the text of a prompt before any model reads it.

    `laconic.shorten` applies it to a text; `laconic.read`, `laconic run` and the rest of the engine apply it to the context
    of a request. The instruction, the question and the chat template are never cut. A session gets token ids, when it is too
    late: `compress()` refuses these methods.

    Args:
        keep: share of the text's tokens. `tokens`: how many of them instead.
        force: a string, or several, that always stay: every piece that holds one of them.
        digits: every piece with a digit in it stays.
        tags: name of a tag whose parts have their own rule: with ``tags="x"``, ``<x, compress=False>...</x>`` stays whole
            and ``<x, rate=0.2>...</x>`` keeps that share; see `laconic.shortening.tags`. Empty: angle brackets are text.
    """

    force: str | Sequence[str] = ()
    digits: bool = False
    tags: str = ""

    seams: ClassVar[tuple[type[Seam], ...]] = (TextSeam,)
    before_reading: ClassVar[bool] = True
    needs_question: ClassVar[bool] = False
    """Whether it cannot work before the question is known."""
    preferred: ClassVar[bool] = False
    """Whether it is taken where a text is to be shortened and no method is named; true of one on the shelf."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.done: Shortened | None = None
        """What became of the text, in a copy of the method that goes on into a session."""
        if self.bytes is not None:
            raise ValueError(f"{self.name}: bytes={self.bytes}: a text has tokens and no cache yet; give keep= or tokens=.")
        self.forced_strings = (self.force,) if isinstance(self.force, str) and self.force else tuple(self.force)

    def split(self, text: str, tokenizer: Any | None, scorer: Any) -> Pieces:
        """The pieces that can be kept or dropped; words, unless the method works on something else.

        Args:
            tokenizer: of the model that will read the text; None where that is not known.
        """
        return words(text, tokenizer)

    def opened(self) -> Any:
        """The model that judges the text, ready to work for one text; None where none does. It has `name`, `tokenizer` and
        `flops`, which counts what it has run."""
        return None

    @abstractmethod
    def select(self, source: Source) -> Sequence[int]:
        """Numbers of the pieces that stay, in the order in which they are to be read."""

    def after(self, done: Shortened) -> Self:
        """This method as it goes into a session whose prompt it has shortened: there it only accounts for that."""
        copied = copy.copy(self)
        copied.done = done
        return copied


def to_apply(methods: Iterable[Method] | None) -> list[PromptMethod]:
    """Those of `methods` that have a text to shorten first."""
    return [method for method in methods or () if isinstance(method, PromptMethod) and method.done is None]


def seconds_spent(methods: Iterable[Method] | None) -> float:
    """What shortening the text has taken, where it has been done."""
    return sum(m.done.seconds for m in methods or () if isinstance(m, PromptMethod) and m.done is not None)
