"""Rows of a training batch that ask many questions about one thing, and which token may see which.

A row opens with what the questions are about. In most rows every question sees the opening and itself alone, at the
positions that it would have as the only question; in the others, chained, the questions are the turns of one chat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Turns = list[tuple[list[int], list[int]]]
"""Questions of one row in ids: the prompt of each, up to where its answer begins, and the answer."""


class Asked(Protocol):
    """A question with its whole reference answer."""

    @property
    def text(self) -> str: ...

    @property
    def answer(self) -> str: ...


class Writer:
    """Writes questions as turns of a testbed's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.user, self.assistant = (tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("user", "assistant"))

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; each is worked out once."""
        if text not in self.known:
            self.known[text] = self.tokenizer.encode(text, add_special_tokens=False)
        return self.known[text]

    def turns(self, questions: Sequence[Asked], chained: bool) -> Turns:
        """``questions`` one by one, or if ``chained`` as the turns of one chat whose first user turn the row has opened."""
        return [
            (
                [*([self.user] if chained and i else []), *self.encode(q.text), self.eos, self.assistant],
                [*self.encode(q.answer), self.eos],
            )
            for i, q in enumerate(questions)
        ]


@dataclass(frozen=True)
class Packed:
    """B rows of n tokens, padded on the right, with N answer tokens of Q questions.

    ids [B, n]; positions [B, n]; mask [B, 1, n, n] (True: may see); at [N] flat index into [B * n] of the token before each
    answer token; targets [N]; question [N] number of the question that each belongs to.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    at: Tensor
    targets: Tensor
    question: Tensor


def pack(openings: Sequence[list[int]], asked: Sequence[Turns], chained: Sequence[bool]) -> Packed:
    """Rows of ``openings`` with the questions ``asked`` of each; ``chained`` rows are chats."""
    rows = []
    at: list[tuple[int, int]] = []
    targets: list[int] = []
    owner: list[int] = []
    asks = 0
    for b, (opening, questions) in enumerate(zip(openings, asked, strict=True)):
        ids, turns, positions = list(opening), [0] * len(opening), list(range(len(opening)))
        for turn, (prompt, answer) in enumerate(questions, 1):
            begin, count = len(ids), len(prompt) + len(answer)
            at += [(b, begin + len(prompt) + i - 1) for i in range(len(answer))]
            targets += answer
            owner += [asks] * len(answer)
            asks += 1
            first = begin if chained[b] else len(opening)
            ids += prompt + answer
            positions += range(first, first + count)
            turns += [turn] * count
        rows.append((ids, turns, positions))
    n = max(len(ids) for ids, _, _ in rows)
    ids_table = np.zeros((len(rows), n), np.int64)
    turn_table = np.full((len(rows), n), -1)
    position_table = np.zeros((len(rows), n), np.int64)
    for b, (ids, turns, positions) in enumerate(rows):
        ids_table[b, : len(ids)] = ids
        turn_table[b, : len(ids)] = turns
        position_table[b, : len(ids)] = positions
    query, key = turn_table[:, :, None], turn_table[:, None, :]
    chats = np.array(chained, dtype=bool)[:, None, None]
    seen = (query == key) | ((key == 0) & (query > 0)) | ((key > 0) & (query > key) & chats)
    return Packed(
        ids=torch.from_numpy(ids_table),
        positions=torch.from_numpy(position_table),
        mask=torch.from_numpy(seen & np.tri(n, dtype=bool))[:, None],
        at=torch.tensor([b * n + i for b, i in at], dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        question=torch.tensor(owner, dtype=torch.long),
    )
