"""One document and its questions, put to a model under one method after another.

What counts is that the answer stays as it was: the uncompressed model answers first, and only questions that it gets right
are asked of compressed ones. Whether a compressed model would greedily write the same answer takes one pass over it (teacher
forcing): every token of the answer must be the most likely one after those before it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from laconic.engine.engine import Engine
from laconic.engine.generation import generate, read_context
from laconic.engine.request import Mode, Request
from laconic.method import Method
from laconic.prompts.text import Prompt, build, common
from laconic.session import Session
from laconic.tasks import Turn
from laconic.tasks.metrics import string_match_part

LONGEST = 48
"""Tokens after which an uncompressed answer is cut off."""
TIMED = 4
"""Tokens that are decoded to time one."""


@dataclass(frozen=True)
class Found:
    """One method on one document, or on one question in view of it.

    Attributes:
        same: number of a question -> the whole answer is that of the uncompressed model.
        kv_bytes: keys and values stored when the budget is spent; `kv_bytes_full`: uncompressed.
        read_seconds: of reading the context, compression included. `token_seconds`: of decoding one token after it.
    """

    same: dict[int, bool]
    kv_bytes: int
    kv_bytes_full: int
    read_seconds: float
    token_seconds: float


@dataclass
class Document:
    """A context with the questions that the uncompressed model answers.

    Attributes:
        asked: how many questions were put to the uncompressed model.
        golds: number of a question -> the ids of its answer, up to where the right answer ends.
        uncompressed: the model's own figures.
    """

    engine: Engine
    context: str
    turns: Sequence[Turn]
    prompts: list[Prompt] = field(init=False)
    golds: dict[int, list[int]] = field(init=False, default_factory=dict)
    uncompressed: Found = field(init=False)

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
        numbers = list(self.golds) if questions is None else list(questions)
        if mode == "later":
            return self._later(method, numbers)
        found = [self._in_view(method, number) for number in numbers]
        same = {number: one.same[number] for number, one in zip(numbers, found, strict=True)}
        count = len(found)
        return Found(
            same,
            sum(one.kv_bytes for one in found) // count,
            sum(one.kv_bytes_full for one in found) // count,
            sum(one.read_seconds for one in found) / count,
            sum(one.token_seconds for one in found) / count,
        )

    def _later(self, method: Method | None, numbers: list[int]) -> Found:
        with self._session(method) as session, torch.inference_mode():
            began = time.perf_counter()
            logits = read_context(session, self.prompts[0].context)
            read = time.perf_counter() - began
            figures, cache = session.stats, session.cache
            assert cache is not None
            with session.hold():
                if method is None:
                    self._learn(session)
                    numbers = list(self.golds)
                same = {n: self._same(session, cache.fork(), self.prompts[n].question, self.golds[n]) for n in numbers}
                token = _token_seconds(session, cache.fork(), logits)
        return Found(same, figures.kv_bytes, figures.kv_bytes_full, read, token)

    def _in_view(self, method: Method | None, number: int) -> Found:
        with self._session(method) as session, torch.inference_mode():
            began = time.perf_counter()
            logits = read_context(session, self.prompts[number].ids)
            read = time.perf_counter() - began
            figures, cache, gold = session.stats, session.cache, self.golds[number]
            assert cache is not None
            with session.hold():
                same = int(logits.argmax()) == gold[0] and self._same(session, cache.fork(), gold[:1], gold[1:])
                token = _token_seconds(session, cache.fork(), logits)
        return Found({number: same}, figures.kv_bytes, figures.kv_bytes_full, read, token)

    def _session(self, method: Method | None) -> Session:
        return Session(self.engine.model, [] if method is None else [method], tokenizer=self.engine.tokenizer)

    def _learn(self, session: Session) -> None:
        """Let the uncompressed model answer everything, and note what it gets right."""
        context, tokenizer = session.cache, self.engine.tokenizer
        assert context is not None
        request = Request(max_new_tokens=LONGEST)
        for number, (prompt, turn) in enumerate(zip(self.prompts, self.turns, strict=True)):
            ids = torch.tensor([prompt.ids], device=session.model.device)
            session.cache = context.fork()
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            (answer,), _ = generate(session, tokenizer, given, request, lambda: None)
            end = next((i for i in range(1, len(answer.ids) + 1) if _right(tokenizer.decode(answer.ids[:i]), turn)), None)
            if end is not None:
                self.golds[number] = answer.ids[:end]

    @staticmethod
    def _same(session: Session, cache: object, before: list[int], gold: list[int]) -> bool:
        """Whether greedy decoding writes `gold` after `before` on what the cache holds."""
        if not gold:
            return True
        ids = torch.tensor([before + gold[:-1]], device=session.model.device)
        logits: Tensor = session.model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0, -len(gold) :]
        return bool(logits.argmax(-1).tolist() == gold)


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
