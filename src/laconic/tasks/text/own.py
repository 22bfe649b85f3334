"""A user's own documents and questions, from a file of JSON lines.

Each line is one document with its questions, and each question has one or more right answers, any of which counts::

    {"context": "...", "questions": [{"question": "...", "answers": ["..."]}]}
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from laconic.tasks.files import FileTask, FormatError, lines_of
from laconic.tasks.metrics import string_match_part
from laconic.tasks.task import Sample, Turn, digest

FORM = '{"context": "...", "questions": [{"question": "...", "answers": ["..."]}]}'


@dataclass(frozen=True)
class Own(FileTask):
    """One sample for each question; an answer is right if one of the reference answers occurs in it, case ignored."""

    name: str = "own"

    @property
    def new_tokens(self) -> int:
        return 48

    @cached_property
    def data(self) -> str:
        contexts = "\0".join(sample.context for sample in self._samples)
        return hashlib.sha256((digest(self._samples) + contexts).encode()).hexdigest()[:12]

    def opened(self, tokens: int = 0, tokenizer: Any = None, folder: Path | None = None) -> Self:
        """The task with the questions in the file `folder`; without one, the same task.

        Raises:
            FormatError: the file cannot be read, or is not as the module says; the message names line and field.
        """
        return self if folder is None else replace(self, held=tuple(read(folder)))

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return string_match_part(answer, sample.turns[turn].answers)


def read(path: Path) -> list[Sample]:
    """The questions of a file in order, numbered from 0.

    Raises:
        FormatError: no such file, no UTF-8, no questions, or a line that is not as the module says.
    """
    path = path.expanduser()
    samples: list[Sample] = []
    for number, line in enumerate(lines_of(path), 1):
        if line.strip():
            context, turns = _document(line, f"{path}, line {number}")
            samples += [
                Sample("own", len(samples) + i, (turn,), context, facts={"line": number}) for i, turn in enumerate(turns)
            ]
    if not samples:
        raise FormatError(f"{path} holds no document; write one per line: {FORM}")
    return samples


def _document(line: str, where: str) -> tuple[str, list[Turn]]:
    """Context and questions of one line; `where` begins the message of an error."""
    try:
        document = json.loads(line)
    except ValueError as error:
        raise FormatError(f"{where} is not JSON ({error}); each line is one document: {FORM}") from error
    fields = _fields(document, ("context", "questions"), where)
    context = _text(fields["context"], f"{where}: context")
    questions = fields["questions"]
    if not isinstance(questions, list) or not questions:
        raise FormatError(f"{where}: questions must be a list of at least one question.")
    turns: list[Turn] = []
    for i, question in enumerate(questions, 1):
        place = f"{where}: question {i}"
        given = _fields(question, ("question", "answers"), place)
        answers = given["answers"]
        if not isinstance(answers, list) or not answers:
            raise FormatError(f"{place}: answers must be a list of at least one text.")
        texts = tuple(_text(answer, f"{place}: answers") for answer in answers)
        turns.append(Turn(_text(given["question"], f"{place}: question"), texts))
    return context.rstrip(), turns


def _fields(value: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """The fields of an object, which has these names and no others."""
    if not isinstance(value, dict):
        raise FormatError(f"{where} must be an object with the fields {' and '.join(names)}, not {type(value).__name__}.")
    for name in names:
        if name not in value:
            raise FormatError(f"{where} has no field {name!r}; it needs {' and '.join(names)}.")
    if extra := [name for name in value if name not in names]:
        raise FormatError(f"{where} has an unknown field {extra[0]!r}; it takes {' and '.join(names)}.")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FormatError(f"{where} must be a text that is not empty, not {json.dumps(value, ensure_ascii=False)[:40]}.")
    return value


OWN = Own()
