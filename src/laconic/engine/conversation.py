"""A context in an open session, and the questions asked about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from laconic.engine.generation import generate, read_context
from laconic.engine.remembering import charged
from laconic.engine.request import Answer, Request
from laconic.engine.stock import StockSession
from laconic.measure.memory import Memory
from laconic.measure.stats import Stats
from laconic.memory.memory import Memory as SoftMemory
from laconic.prompts.inputs import on_device
from laconic.prompts.text import Prompt
from laconic.session import Session
from laconic.shortening.contract import seconds_spent

OnText = Callable[[str], None]
AtPrompt = Callable[[Any], None]
"""Receives the session, a `Session` or a `StockSession`."""


@dataclass
class Conversation:
    """Made by `Engine.conversation`, which answers the first question.

    Attributes:
        request, prompt: of the first question.
        memory, notes: of the session, for the answers.
        cache: what has been said so far; given at the beginning, it holds the prompt's context already.
        answers: so far.
        kept: the memory that stands in the prompt for its context, if one does; its cost is part of the figures.
    """

    tokenizer: Any
    request: Request
    prompt: Prompt
    session: Session | StockSession
    memory: Memory
    notes: list[str]
    cache: Any = None
    answers: list[Answer] = field(default_factory=list)
    kept: SoftMemory | None = None
    _ids: list[int] = field(default_factory=list)
    _figures: list[Stats] = field(default_factory=list)

    def begin(self, on_text: OnText | None = None, at_prompt: AtPrompt | None = None) -> None:
        """Read the context, if it goes first, and answer the first question. See `Engine.answer`."""
        request, session = self.request, self.session
        self._ids = list(self.prompt.ids)
        inputs = on_device(session.model, self.prompt.inputs)
        saved = None if isinstance(session, StockSession) else request.saved
        goes_first = self.cache is not None or saved is not None or request.mode == "later"
        began = time.perf_counter() - (seconds_spent(request.methods) if self.cache is None else 0)
        if self.cache is not None:
            session.cache = self.cache
        elif saved is not None:
            session.cache = saved.cache()  # type: ignore[assignment]
        elif goes_first:
            read_context(session, self.prompt.context, request.chunk, self.prompt.inputs)
        if goes_first:
            self._figures.append(self.stats)
        # the budget of a context that went first has been spent: the question is stored whole
        with session.hold() if goes_first else nullcontext():
            self._answer(request, began, {} if goes_first else inputs, on_text, at_prompt)

    @property
    def stats(self) -> Stats:
        """Figures of the session, and of the memory in the prompt."""
        session = self.session
        return session.stats if isinstance(session, StockSession) else charged(session.stats, self.kept, session.shape)

    def ask(
        self,
        ids: list[int],
        max_new_tokens: int | None = None,
        *,
        end: int | None = None,
        whole: bool = True,
        on_text: OnText | None = None,
    ) -> Answer:
        """Ask a further question.

        Args:
            ids: what follows the last answer's end of turn: the user's turn and the opening of the next answer.
            end: the token that ends an answer; None: the tokenizer's end of sequence.
            whole: store the question whole and remove nothing while it is answered; else the methods compress everything
                said so far, with the question in view.
            on_text: see `Engine.answer`.
        """
        end = self.tokenizer.eos_token_id if end is None else end
        if self.answers[-1].finish != "eos" and self._ids[-1] != end:  # an answer that was cut off still ends its turn
            self._ids.append(end)
        self._ids += ids
        request = self.request if max_new_tokens is None else replace(self.request, max_new_tokens=max_new_tokens)
        with self.session.hold() if whole else nullcontext():
            return self._answer(request, time.perf_counter(), {}, on_text)

    def _answer(
        self,
        request: Request,
        began: float,
        inputs: Mapping[str, Any],
        on_text: OnText | None = None,
        at_prompt: AtPrompt | None = None,
    ) -> Answer:
        """Answer everything in the conversation so far."""
        session = self.session
        if self.cache is not None:
            session.cache = self.cache
        ids = torch.tensor([self._ids], device=session.model.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}

        def at_first() -> None:
            if self.answers:
                return
            if isinstance(session, Session) and session.cache is not None:
                session.cache.settle()  # the prompt is over: what is read now has been packed, too
            if at_prompt is not None:
                at_prompt(session)
            self._figures.append(self.stats)

        (new,), clock = generate(session, self.tokenizer, given, request, at_first, on_text)
        answer = Answer(
            **vars(new),
            first_seconds=clock.first - began + (0.0 if self.answers or self.kept is None else self.kept.seconds),
            later_seconds=clock.last - clock.first,
            compressed=self._figures[0],
            prompt=self._figures[-1],
            final=self.stats,
            peak_memory=self.memory.peak(),
            memory_kind=self.memory.kind,
            notes=self.notes,
            session=session,
            kept=self.kept,
        )
        self.answers.append(answer)
        self._ids += new.ids
        self.cache = session.cache
        return answer
