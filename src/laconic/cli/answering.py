"""One question answered for the command line, compressed or by the stock model, with the figures that both share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from laconic.cli.question import Question
from laconic.cli.visual_tokens import VisualTokens
from laconic.engine.request import Answer
from laconic.engine.stock import StockSession
from laconic.engine.warm_up import warm_up
from laconic.measure.stats import Stats
from laconic.session import Session


@dataclass
class Run:
    """An answer, and what was measured while it was generated.

    Attributes:
        answer: its `compressed` figures are those once the budget is spent.
        final: figures at the end, when the session was closed.
        prefill_seconds: without those of the vision encoder.
        entries: entries per compressed layer when the prompt had been read: (fewest, mean, most) over the heads.
        visual: the prompt's visual tokens, in compressed runs with images.
    """

    answer: Answer
    final: Stats
    prefill_seconds: float
    entries: list[tuple[int, float, int]] = field(default_factory=list)
    visual: VisualTokens | None = None

    @property
    def decode_seconds_per_token(self) -> float | None:
        """Time inside the model per decoded token; None when nothing was decoded after the first token."""
        return self.final.decode_seconds / self.final.tokens_out if self.final.tokens_out else None

    @property
    def session(self) -> Session:
        """Of a compressed run."""
        assert isinstance(self.answer.session, Session)
        return self.answer.session


def compressed(
    question: Question,
    on_text: Callable[[str], None] | None = None,
    at_prompt: Callable[[Session], None] = lambda session: None,
) -> Run:
    """Answer inside a session; what it warns about goes into the options' warnings.

    Args:
        at_prompt: called when the whole prompt is in the cache, before the first token is decoded.
    """
    engine = question.engine
    warm_up(engine.model, question.prompt, question.methods)
    entries: list[tuple[int, float, int]] = []

    def prompt_read(session: Any) -> None:
        lengths = [layer.lengths[0] for layer in session.cache.compressed()]
        entries.extend((int(x.min()), float(x.float().mean()), int(x.max())) for x in lengths)
        at_prompt(session)

    visual = VisualTokens(engine.model) if question.prompt.inputs else None
    with visual or nullcontext():
        answer = engine.answer(question.request, on_text, prompt_read)
    question.options.warnings += answer.notes
    run = Run(answer, answer.session.stats, answer.session.stats.prefill_seconds, entries, visual)
    if question.later:  # generate() encodes images before it calls the model, a plain call inside the model
        run.prefill_seconds -= run.final.encoder_seconds
    return run


def stock(question: Question) -> Run:
    """Answer with the uncompressed model, context and question together."""
    answer = question.engine.answer(question.request.stock())
    assert isinstance(answer.session, StockSession)
    return Run(answer, answer.final, answer.final.prefill_seconds)
