"""Tasks over real documents, for real language models: facts hidden in prose, and how a document goes on.

The documents are Python's own documentation, read from the installed package (`laconic.tasks.text.corpus`): those from which
nothing is trained or calibrated, and seeds from `EVALUATION_SEED` on.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from laconic.prompts.text import build
from laconic.tasks.metrics import string_match_all
from laconic.tasks.task import EVALUATION_SEED, Sample, Turn
from laconic.tasks.text import corpus
from laconic.tasks.text.facts import facts
from laconic.tasks.text.haystack import haystack, plant
from laconic.tasks.text.sized import SizedTask

SOURCE = f"Python {sys.version_info.major}.{sys.version_info.minor}: pydoc_data.topics and docstrings"
"""Where the documents come from; results depend on it."""
CONTINUATION_TOKENS = 96


@dataclass(frozen=True)
class DocumentTask(SizedTask):
    """A task whose samples are made to a length from real documents."""

    modality: ClassVar[str] = "document"
    min_tokens: ClassVar[int | None] = 256
    likelihood: ClassVar[bool] = False
    """Whether the true continuation of the context is scored, token by token, where others have questions."""

    @property
    def data(self) -> str:
        return SOURCE

    def _made(self, number: int) -> Sample:
        source = corpus.lines("prose", held_out=number >= EVALUATION_SEED)
        return self._written(number, random.Random(f"{self.name}-{number}-{self.tokens}"), source)

    def _written(self, number: int, rng: random.Random, source: tuple[str, ...]) -> Sample:
        """The sample of this number, drawn by `rng` over the lines `source`."""
        raise NotImplementedError

    @property
    def _length(self) -> Callable[[str], int]:
        return lambda text: len(self.tokenizer.encode(text, add_special_tokens=False))

    def score(self, answer: Any, sample: Sample, turn: int = 0) -> float:
        return string_match_all(str(answer), sample.turns[turn].answers)

    def exact(self, answer: Any, sample: Sample, turn: int = 0) -> float:
        asked = sample.turns[turn]
        return float(str(answer).strip() == asked.gold.removeprefix(asked.prefix).strip())


class Facts(DocumentTask):
    """Facts at random lines of a document, several questions about each context; see `laconic.tasks.text.facts`."""

    @property
    def several_turns(self) -> bool:
        return True

    def _written(self, number: int, rng: random.Random, source: tuple[str, ...]) -> Sample:
        block, length = facts(rng), self._length
        lines = [line for group in block.groups for line in group]
        around = max(
            build(self.tokenizer, "x", turn.question, answer_prefix=turn.prefix).tokens + length(turn.answers[0])
            for turn in block.turns
        )
        room = self.tokens - around - sum(length("\n" + line) for line in lines)
        hay = haystack(rng, source, room, length)
        planted = plant(rng, hay, rng.sample(lines, len(lines)))
        return Sample(self.name, number, tuple(block.turns), "\n".join(planted))


class Continuation(DocumentTask):
    """The true continuation of a document: its last `CONTINUATION_TOKENS` tokens, given those before, without a template."""

    likelihood = True

    def fits(self, mode: str) -> bool:
        return mode == "later"

    def _written(self, number: int, rng: random.Random, source: tuple[str, ...]) -> Sample:
        """A window of whole lines, at most `tokens` long, that ends inside of a document."""
        documents = corpus.documents("prose", held_out=number >= EVALUATION_SEED)
        ends = list(accumulate(len(lines) for lines in documents))
        end = rng.choice([at for start, stop in zip([0, *ends], ends, strict=False) for at in range(start + 8, stop)])
        tail, at = _back(source, end, CONTINUATION_TOKENS, self._length)
        head, _ = _back(source, at, self.tokens - CONTINUATION_TOKENS, self._length)
        gold = "\n" + "\n".join(tail)
        return Sample(self.name, number, (Turn("", (gold.strip(),), gold=gold),), "\n".join(head))


def _back(source: tuple[str, ...], end: int, room: int, length: Callable[[str], int]) -> tuple[list[str], int]:
    """The lines before line `end` (and, at the start of `source`, those at its end) that take at most `room` tokens, and
    the number of the first of them."""
    lines: list[str] = []
    while (room := room - length("\n" + source[(end - 1) % len(source)])) >= 0:
        end -= 1
        lines.insert(0, source[end % len(source)])
    return lines, end


DOCUMENT_TASKS = (Facts("facts"), Continuation("continuation"))
