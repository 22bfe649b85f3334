"""A conversation whose questions come one at a time, in an open session."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from transformers import StoppingCriteria

from laconic.engine.conversation import Conversation, OnText
from laconic.engine.engine import Engine
from laconic.engine.generation import ends_of_turn
from laconic.engine.request import Answer, Request
from laconic.measure.stats import Stats
from laconic.prompts.turns import following


class Chat:
    """Questions about a context, or about nothing, asked in turn of one model.

    The context is read with the first question, but compressed before it; questions and answers are stored whole. With
    `compress_turns`, and wherever there is no context, every turn is compressed together with all before it.

    Args:
        request: how questions are answered; its own question and mode are not used.
        compress_turns: let the methods cut the conversation again with every question.

    Example:
        >>> with Chat(engine, Request(context=report, methods=[method])) as chat:
        ...     chat.ask("What was agreed?").text
        ...     chat.ask("And by whom?").text
    """

    def __init__(self, engine: Engine, request: Request, compress_turns: bool = False):
        self.engine = engine
        self._stop = _Stop()
        given = request.options.get("stopping_criteria", ())
        options = {**request.options, "stopping_criteria": [self._stop, *given]}
        self.request = replace(request, options=options, mode="later" if request.context else "in view")
        self._whole = bool(request.context) and not compress_turns
        self._talk: Conversation | None = None
        self._open = ExitStack()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *error: object) -> None:
        self.reset()

    def ask(self, question: str, on_text: OnText | None = None) -> Answer:
        """The answer to a question, all questions before it in mind.

        Args:
            on_text: called with every finished piece of the answer.

        Raises:
            LaconicError: a question, methods or a budget that do not fit; the conversation then begins anew.
        """
        self._stop.wanted = False
        try:
            if self._talk is None:
                first = replace(self.request, question=question)
                self._talk = self._open.enter_context(self.engine.conversation(first, on_text))
                return self._talk.answers[0]
            ends = ends_of_turn(self.engine.model) or [self.engine.tokenizer.eos_token_id]
            turn = following(self.engine.tokenizer, question, ends)
            return self._talk.ask(turn.ids, end=turn.end, whole=self._whole, on_text=on_text)
        except BaseException:
            self.reset()  # a pass that broke off leaves some layers with its tokens and others without
            raise

    def stop(self) -> None:
        """End the answer that is being generated after its next token; what there is of it stays in the conversation."""
        self._stop.wanted = True

    def reset(self) -> None:
        """Forget what was said. The context is read again with the next question."""
        self._open.close()
        self._talk = None

    @property
    def answers(self) -> list[Answer]:
        """Those since the beginning."""
        return [] if self._talk is None else self._talk.answers

    @property
    def stats(self) -> Stats | None:
        """Figures of the conversation so far; None before the first question."""
        return None if self._talk is None else self._talk.stats

    @property
    def notes(self) -> list[str]:
        """What methods and transformers have warned about; complete when the conversation has been reset."""
        return [] if self._talk is None else self._talk.notes


class _Stop(StoppingCriteria):
    """Stops once that is wanted."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        return torch.full((len(input_ids),), self.wanted, dtype=torch.bool, device=input_ids.device)
