"""One document and its questions, put to a model under one method after another.

What counts is that the answer stays as it was: the uncompressed model answers first, and only questions that it gets right
are asked of compressed ones. Whether a compressed model would greedily write the same answer takes one pass over it (teacher
forcing): every token of the answer must be the most likely one after those before it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from laconic.engine.engine import Engine
from laconic.engine.examination import forced, forced_alone
from laconic.engine.generation import generate, read_context
from laconic.engine.readings import Readings
from laconic.engine.request import Mode, Request
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.prompts.text import Prompt, build, common
from laconic.session import Session
from laconic.tasks import Turn
from laconic.tasks.metrics import string_match_part

LONGEST = 48
"""Tokens after which an uncompressed answer is cut off."""
CONTEXT = -1
"""Number of the prompt that is the context alone, beside those of the questions."""
TIMED = 8
"""Tokens that are decoded to time one."""


@dataclass(frozen=True)
class Found:
    """One method on one document, or on one question in view of it.

    Attributes:
        same: number of a question -> the whole answer is that of the uncompressed model.
        kv_bytes: keys and values stored when the budget is spent; `kv_bytes_full`: uncompressed.
        seconds: that finding out took. They say nothing about the method: most prompts are read once for all methods.
    """

    same: dict[int, bool]
    kv_bytes: int
    kv_bytes_full: int
    seconds: float


@dataclass(frozen=True)
class Times:
    """Seconds of one run: of reading the prompt, compression included, and of decoding one token after it (the median).

    In view the method evicts and packs while tokens are decoded. Of questions that come later the tokens follow the context
    alone and are all stored as they are, as those of an answer about it would be.
    """

    read: float
    token: float


@dataclass
class Document:
    """A context with the questions that the uncompressed model answers.

    Attributes:
        asked: how many questions were put to the uncompressed model.
        golds: number of a question -> the ids of its answer, up to where the right answer ends.
        uncompressed: the model's own figures.
        readings: prompts that were read, for all methods; its caller drops it when the next document comes.
    """

    engine: Engine
    context: str
    turns: Sequence[Turn]
    prompts: list[Prompt] = field(init=False)
    golds: dict[int, list[int]] = field(init=False, default_factory=dict)
    uncompressed: Found = field(init=False)
    readings: Readings = field(init=False, default_factory=Readings)

    def __post_init__(self) -> None:
        self.prompts = [build(self.engine.tokenizer, self.context, t.question, answer_prefix=t.prefix) for t in self.turns]
        # a tokenizer may join the end of the context with one question and not with another
        first = self.prompts[0].ids
        cut = min(len(self.prompts[0].context), *(common(first, p.ids) for p in self.prompts[1:]), len(first) - 1)
        self.prompts = [Prompt(p.ids[:cut], p.ids[cut:], p.templated, p.text) for p in self.prompts]
        self.uncompressed = self.ask(None, "later")

    @property
    def asked(self) -> int:
        return len(self.turns)

    def ask(self, method: Method | None, mode: Mode, questions: Sequence[int] | None = None) -> Found:
        """Ask the known questions, or some of them, under `method`; None: the uncompressed model, which finds out which are
        known.

        Args:
            mode: "later": the context is read and compressed once, for all of them; "in view": once for each question.

        Raises:
            LaconicError: the method does not fit the model, or the budget does not fit the prompt.
        """
        began = time.perf_counter()
        numbers = list(self.golds) if questions is None else list(questions)
        if mode == "later":
            same, figures = self._later(method, numbers)
        else:
            same, figures = self._in_view(method, numbers)
        stored, full = (
            sum(one) // len(figures) for one in zip(*((f.kv_bytes, f.kv_bytes_full) for f in figures), strict=True)
        )
        return Found(same, stored, full, time.perf_counter() - began)

    def _later(self, method: Method | None, numbers: list[int]) -> tuple[dict[int, bool], list[Stats]]:
        with self._session(method) as session, torch.inference_mode():
            self.readings.read(session, method, CONTEXT, self.prompts[0].context)
            figures, cache = session.stats, session.cache
            assert cache is not None
            with session.hold():
                if method is None:
                    self._learn(session)
                    numbers = list(self.golds)
                session.cache = cache
                golds = [self.golds[n] for n in numbers]
                said = forced(session, [self.prompts[n].question for n in numbers], golds) if numbers else []
        return {n: tokens == gold for n, tokens, gold in zip(numbers, said, golds, strict=True)}, [figures]

    def _in_view(self, method: Method | None, numbers: list[int]) -> tuple[dict[int, bool], list[Stats]]:
        same: dict[int, bool] = {}
        figures: list[Stats] = []
        for number in numbers:
            gold = self.golds[number]
            self.readings.forget_all_but([number])
            with self._session(method) as session, torch.inference_mode():
                logits, _ = self.readings.read(session, method, number, self.prompts[number].ids)
                figures.append(session.stats)
                same[number] = forced_alone(session, method, logits, gold) == gold
        return same, figures

    def timed(self, method: Method | None, mode: Mode) -> Times:
        """Times of a run that replays no recorded pass, on the first question that is known; see `Times`."""
        prompt = self.prompts[next(iter(self.golds), 0)]
        with self._session(method) as session, torch.inference_mode():
            began = time.perf_counter()
            logits = read_context(session, prompt.context if mode == "later" else prompt.ids)
            read = time.perf_counter() - began
            with session.hold() if mode == "later" else nullcontext():
                return Times(read, _token_seconds(session, session.cache, logits))

    def _session(self, method: Method | None) -> Session:
        return Session(self.engine.model, [] if method is None else [method], tokenizer=self.engine.tokenizer)

    def _learn(self, session: Session) -> None:
        """Let the uncompressed model answer everything, and note what it gets right."""
        context, tokenizer = session.cache, self.engine.tokenizer
        assert context is not None
        for number, (prompt, turn) in enumerate(zip(self.prompts, self.turns, strict=True)):
            ids = torch.tensor([prompt.ids], device=session.model.device)
            session.cache = context.fork()
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            until = _Answered(tokenizer, turn, len(prompt.ids))
            request = Request(max_new_tokens=LONGEST, options={"stopping_criteria": [until]})
            (answer,), _ = generate(session, tokenizer, given, request, lambda: None)
            end = next((i for i in range(1, len(answer.ids) + 1) if _right(tokenizer.decode(answer.ids[:i]), turn)), None)
            if end is not None:
                self.golds[number] = answer.ids[:end]


class _Answered(StoppingCriteria):
    """Ends an answer that holds what is right: how it goes on is of no use."""

    def __init__(self, tokenizer: Any, turn: Turn, prompt: int):
        self.tokenizer, self.turn, self.prompt = tokenizer, turn, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        right = [_right(self.tokenizer.decode(row[self.prompt :]), self.turn) for row in input_ids]
        return torch.tensor(right, device=input_ids.device)


def _right(text: str, turn: Turn) -> bool:
    return string_match_part(text, turn.answers) == 1


def _token_seconds(session: Session, cache: object, logits: Tensor) -> float:
    """Median time of decoding a token on what the cache holds."""
    times, token = [], logits.argmax(-1)[None]
    for _ in range(TIMED):
        began = time.perf_counter()
        token = session.model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        times.append(time.perf_counter() - began)
    return sorted(times)[TIMED // 2]
