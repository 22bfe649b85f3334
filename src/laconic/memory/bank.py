"""A bank of memories: texts are compressed once, and those nearest to a question stand in its prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import fingerprint
from laconic.errors import BudgetError
from laconic.memory.contract import MemoryMethod
from laconic.memory.memory import Memory
from laconic.prompts.text import PromptError
from laconic.specs import methods_of


class Bank:
    """Memories of many texts, such as demonstrations or passages, each compressed alone and once.

    A text's embedding is the mean of its soft tokens; the nearest to a question are those with the highest cosine with that
    of the question, which is compressed in the same way. What is kept depends on text, share, weights and model, so a bank
    may be filled under one method and asked under another: what is missing is made.

    Args:
        model, tokenizer: of the model that will answer. `method`: what makes the memories, or its text.
        known: memories of an earlier bank, `Bank.known`, to go on from.

    Raises:
        TypeError: a method of another site. LaconicError: no weights for this model.

    Example:
        >>> bank = laconic.Bank(model, tokenizer, "NAME:keep=0.25")
        >>> bank.add(demonstrations)
        >>> model.generate(**bank.memory(question, 4).inputs(model, tokenizer, question))
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        method: MemoryMethod | str,
        known: dict[tuple[Any, ...], Memory] | None = None,
    ):
        (made,) = methods_of([method])
        if not isinstance(made, MemoryMethod):
            raise TypeError(f"{made.name} makes no memories; a bank takes a method of the site memory.")
        made.attach(model)
        self.model, self.tokenizer, self.method = model, tokenizer, made
        self.known: dict[tuple[Any, ...], Memory] = {} if known is None else known
        self.texts: list[tuple[int, ...]] = []
        self._model = fingerprint(model)

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, texts: Iterable[str]) -> None:
        """Compress the texts that are not known yet; all become candidates, in this order.

        Raises:
            PromptError: a text without a token.
        """
        for text in texts:
            ids = self._ids(text)
            self._memory(ids)
            self.texts.append(ids)

    def similarities(self, question: str) -> Tensor:
        """Cosine of the question's mean soft token with that of every text, [texts]."""
        asked = self._memory(self._ids(question)).soft.mean(0)
        means = torch.stack([self._memory(ids).soft.mean(0) for ids in self.texts])
        return torch.nn.functional.cosine_similarity(asked[None], means)

    def nearest(self, question: str, count: int) -> list[int]:
        """Numbers of the `count` texts nearest to a question, the nearest first; of equal ones the one added first.

        Raises:
            BudgetError: fewer texts than that, or none wanted.
        """
        if not 1 <= count <= len(self):
            raise BudgetError(f"count={count}: the bank has {len(self)} texts; ask for 1 to {len(self)}.")
        return self.similarities(question).argsort(descending=True, stable=True)[:count].tolist()

    def memory(self, question: str, count: int) -> Memory:
        """The memories of the `count` texts nearest to a question as one, the nearest first."""
        return Memory.joined([self._memory(self.texts[i]) for i in self.nearest(question, count)])

    def within(self, question: str, tokens: int) -> Memory:
        """The memories nearest to a question that fit into `tokens` soft tokens together, the nearest first; one that does
        not fit is passed over.

        Raises:
            BudgetError: none fits.
        """
        chosen, room = [], tokens
        for i in self.nearest(question, len(self)) if len(self) else []:
            memory = self._memory(self.texts[i])
            if len(memory.soft) <= room:
                chosen.append(memory)
                room -= len(memory.soft)
        if not chosen:
            raise BudgetError(f"tokens={tokens}: none of the {len(self)} memories fits; give more, or a smaller keep=.")
        return Memory.joined(chosen)

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        if not ids:
            raise PromptError("a text without a token has no memory; leave empty ones out.")
        return ids

    def _memory(self, ids: tuple[int, ...]) -> Memory:
        key = (self._model, self.method.name, self.method.digest, self.method.keep, ids)
        if key not in self.known:
            self.known[key] = Memory.of(self.model, self.tokenizer, list(ids), self.method)
        return self.known[key]
