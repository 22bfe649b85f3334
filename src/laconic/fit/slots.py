"""Contexts of one-token facts with questions in turn, as tensors, to train ``testbed/facts`` and networks beside it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.prompts.text import JOINT
from laconic.tasks.text.slots import COPY, SLOTS, VALUES

QUESTIONS = 8
WORDS = (JOINT.strip(), COPY, "0", "a?", "a0")
"""What separates context and questions, what asks for a copy, and the first value, question and fact."""


@dataclass(frozen=True)
class Reading:
    """A batch of contexts of one length, and what follows each of them.

    Attributes:
        opening: token ids before every context, [o]. `context`: [B, n].
        rest: questions and answers after it, [B, m]; `learned`: whether a loss is taken on predicting each of them [B, m].
    """

    opening: Tensor
    context: Tensor
    rest: Tensor
    learned: Tensor

    def to(self, device: torch.device) -> Reading:
        """The same batch on a device."""
        return Reading(*(x.to(device) for x in (self.opening, self.context, self.rest, self.learned)))


def has_facts(tokenizer: Any) -> bool:
    """Whether a tokenizer has one token for each fact."""
    return not _missing(tokenizer)


def _missing(tokenizer: Any) -> list[str]:
    known = tokenizer.get_vocab()
    return [word for word in WORDS if word not in known]


class SlotReadings:
    """Draws batches for a model whose tokenizer has one token for each fact.

    Raises:
        ValueError: a tokenizer that has not.
    """

    def __init__(self, tokenizer: Any):
        number = tokenizer.convert_tokens_to_ids
        if missing := _missing(tokenizer):
            raise ValueError(f"this tokenizer has no token {missing[0]!r}: these facts are for testbed/facts.")
        self.opening, self.end = torch.tensor([tokenizer.bos_token_id]), tokenizer.eos_token_id
        self.joint, self.copy, self.first_value, self.first_question, self.first_fact = map(number, WORDS)

    def draw(self, rng: random.Random, rows: int, facts: int, copying: bool = False) -> Reading:
        """`rows` contexts of `facts` facts, each with `QUESTIONS` questions in turn, or asked to copy all facts."""
        drawn = torch.Generator().manual_seed(rng.getrandbits(48))
        values = torch.randint(VALUES, (rows, len(SLOTS)), generator=drawn)
        slots = torch.rand(rows, len(SLOTS), generator=drawn).argsort(1)[:, :facts]
        again = torch.randint(slots.shape[1], (rows, facts - slots.shape[1]), generator=drawn)
        order = torch.cat([slots, slots.gather(1, again)], 1)
        order = order.gather(1, torch.rand(rows, facts, generator=drawn).argsort(1))
        context = self.first_fact + order * VALUES + values.gather(1, order)
        if copying:
            turns = [(torch.full((rows, 1), self.copy), context)]
        else:
            asked = slots[:, torch.randperm(slots.shape[1], generator=drawn)[:QUESTIONS]]
            told = self.first_value + values.gather(1, asked)
            turns = list(zip((self.first_question + asked).split(1, 1), told.split(1, 1), strict=True))
        parts = [(self._all(rows, self.joint), False)]
        for question, answer in turns:
            parts += [(question, False), (answer, True), (self._all(rows, self.end), True)]
        rest = torch.cat([part for part, _ in parts], 1)
        learned = torch.cat([torch.full_like(part, wanted, dtype=torch.bool) for part, wanted in parts], 1)
        return Reading(self.opening, context, rest, learned)

    def _all(self, rows: int, token: int) -> Tensor:
        return torch.full((rows, 1), token)
