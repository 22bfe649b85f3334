"""Asking about text: one sample at a time, through the chat template, in one or several turns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from transformers import PreTrainedModel

from laconic.bench.asking import Asked, Asking, Reply, with_flops
from laconic.bench.grid import Cell, Column, Grid, Place
from laconic.engine.engine import Answer, Engine, Request
from laconic.engine.request import Mode
from laconic.errors import LaconicError
from laconic.loading import tokenizer_of
from laconic.method import Method
from laconic.prompts.text import Prompt, build
from laconic.shortening.contract import to_apply
from laconic.tasks import Sample, Task
from laconic.tasks.text.chat import gold_ids, prompt_ids, turn_ids

SPARE_TOKENS = 4
"""How many tokens longer than the reference an answer may be before it is cut off."""
WARM = 4096
"""Characters of a context that a warm-up reads."""


class ChatAsking(Asking):
    """Asks in the modes of text, the answer opened by the sample's prefix."""

    def __init__(self, model: PreTrainedModel, reader: Any, name: str, grid: Grid, batch: int = 1):
        super().__init__(model, tokenizer_of(reader), name, grid, batch)
        self.settings = {
            "answer_prefix": True,
            "decoding": f"greedy, at most {SPARE_TOKENS} tokens more than the reference answer",
        }
        # the modes of one sample come in succession
        self._sample = lru_cache(maxsize=8)(lambda name, length, number: self._task(name, length).sample(number))

    def _task(self, name: str, length: int) -> Task:
        return self.grid.task(name).opened(tokens=length, tokenizer=self.engine.tokenizer)

    def task_settings(self, place: Place) -> dict[str, Any]:
        task = self.grid.task(place.task)
        return {"new_tokens": task.new_tokens, "data": task.data} if task.from_files else {}

    def task(self, place: Place) -> Task:
        return self._task(place.task, place.length)

    def warm_up(self, left: Sequence[Cell]) -> dict[Column, str]:
        """On the shortest samples, which say nothing about longer ones: no budget is refused because of them."""
        first: dict[str, Cell] = {}
        for cell in left:
            first.setdefault(cell.method, cell)
        for cell in first.values():
            task = self.grid.task(cell.task)
            sample = self._sample(cell.task, task.min_tokens or 0, cell.seed)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    answer(
                        self.engine, replace(sample, context=sample.context[:WARM]), "agnostic", cell.build(), new_tokens=2
                    )
            except (LaconicError, ValueError, TypeError):  # its own rows will report it
                continue
        return {}

    def batches(self, wanted: Callable[[Place], bool], known: dict[tuple[str, int], bool]) -> Iterator[list[Asked]]:
        for place in filter(wanted, self.grid.places()):
            yield [Asked(place, self.task(place), self._sample(place.task, place.length, place.number))]

    def ask(self, batch: Sequence[Asked], method: Method | None) -> list[Reply]:
        return [Reply(asked, self._answers(asked, method)) for asked in batch]

    def _answers(self, asked: Asked, method: Method | None) -> list[Answer]:
        """The answers to all turns; the first one with all FLOPs of its prompt."""
        sample, mode = asked.sample, asked.place.mode
        first, *others = answer(self.engine, sample, mode, method, asked.task.new_tokens)
        if method is not None:
            first = with_flops(first, answer(self.engine, sample, mode, method, new_tokens=1, count_flops=True)[0])
        return [first, *others]


def answer(
    engine: Engine,
    sample: Sample,
    mode: str,
    method: Method | None,
    new_tokens: int | None = None,
    count_flops: bool = False,
) -> list[Answer]:
    """Put `sample` to the model in one of the modes of text; one answer for each turn.

    Args:
        method: None for the uncompressed model.
        count_flops: count those of the method's own work.
        new_tokens: longest answer; None: a few more tokens than the whole reference answer has.
    """
    tokenizer = engine.tokenizer
    early: Mode = "in view" if mode in ("aware", "turns_aware") else "later"
    methods: Sequence[Method] | None = None if method is None else [method]
    if to_apply(methods):
        short = engine.shortened(Request(context=sample.context, question=sample.question, methods=methods, mode=early))
        sample, methods = replace(sample, context=short.context), short.methods
    if sample.turns[0].gold:
        prompt = Prompt(*prompt_ids(sample, tokenizer), True, sample.context)
    else:  # a text of any kind, whose last token may reach into what follows it
        prompt = build(tokenizer, sample.context, sample.question, answer_prefix=sample.turns[0].prefix)
    request = Request(
        prompt=prompt,
        methods=methods,
        mode=early,
        max_new_tokens=new_tokens or _room(sample, tokenizer, 0),
        count_flops=count_flops,
    )
    turns = len(sample.turns) if mode in ("turns", "turns_aware") else 1
    with engine.conversation(request) as talk:
        for turn in range(1, turns):
            talk.ask(turn_ids(sample, tokenizer, turn), new_tokens or _room(sample, tokenizer, turn))
    return talk.answers


def _room(sample: Sample, tokenizer: Any, turn: int) -> int:
    return len(gold_ids(sample, tokenizer, turn)) + SPARE_TOKENS
