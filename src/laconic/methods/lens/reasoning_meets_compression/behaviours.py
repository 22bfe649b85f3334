"""What a model does in a stretch of its answer, told by how the stretch begins (arXiv 2504.02010, section on probing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""First token, and the one after the last."""
OPENINGS = {"backtracking": "wait", "checking": "check"}
"""Behaviour -> the word that opens a step of it."""
RECALLING = "recalling"
"""What is said after the mark without any thinking: the model knows it by heart."""
ENDS = (";", ".", "\n")


@dataclass(frozen=True)
class Response:
    """One answer with its prompt.

    Attributes:
        ids: token ids of prompt and answer. `prompt`: how many belong to the prompt.
        spans: behaviour -> where in `ids` it is.
    """

    ids: list[int]
    prompt: int
    spans: dict[str, list[Span]]


def response(prompt: Sequence[int], answer: Sequence[int], pieces: Sequence[str], mark: Sequence[int]) -> Response:
    """An answer with its behaviours.

    Args:
        pieces: the text of every token of `answer`. `mark`: the tokens that end the thinking.
    """
    size = len(mark)
    end = next((i for i in range(len(answer)) if tuple(answer[i : i + size]) == tuple(mark)), len(answer))
    spans: dict[str, list[Span]] = {}
    start = 0
    for at in range(end):
        if at + 1 == end or pieces[at].strip(" ").endswith(ENDS):
            opening = "".join(pieces[start : at + 1]).lstrip().lower()
            for name, word in OPENINGS.items():
                if opening.startswith(word):
                    spans.setdefault(name, []).append((len(prompt) + start, len(prompt) + at + 1))
            start = at + 1
    if end == 0 and len(answer) > size:
        spans[RECALLING] = [(len(prompt) + size, len(prompt) + len(answer))]
    return Response([*prompt, *answer], len(prompt), spans)
