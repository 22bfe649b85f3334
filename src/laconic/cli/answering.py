"""One question answered for the command line, compressed or by the stock model, with the figures that both share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from laconic.cli.question import Question
from laconic.cli.visual_tokens import VisualTokens
from laconic.decode.contract import ReasoningMethod
from laconic.decode.marks import Thinking, end_of_thinking, latent_token, thinking_in
from laconic.engine.remembering import charged
from laconic.engine.request import Answer
from laconic.engine.stock import StockSession
from laconic.engine.warm_up import warm_up
from laconic.errors import UnsupportedModelError
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
        timed: runs that the times are the fastest of.
        thinking: how much of the answer is thinking, for a model that has a mark to end it.
    """

    answer: Answer
    final: Stats
    prefill_seconds: float
    entries: list[tuple[int, float, int]] = field(default_factory=list)
    visual: VisualTokens | None = None
    timed: int = 1
    thinking: Thinking | None = None

    @property
    def decode_seconds_per_token(self) -> float | None:
        """Time inside the model per decoded token; None when nothing was decoded after the first token."""
        return self.final.decode_seconds / self.final.tokens_out if self.final.tokens_out else None

    @property
    def session(self) -> Session:
        """Of a compressed run."""
        assert isinstance(self.answer.session, Session)
        return self.answer.session


def faster(a: Run, b: Run) -> Run:
    """`a` with the times of the faster of two runs of the same question, for prefill and for decoding by itself.

    Where their answers differ, `a` as it was: they did not do the same work.
    """
    if a.answer.ids != b.answer.ids:
        return a
    prefill = min(a, b, key=lambda run: run.prefill_seconds)
    decode = min(a, b, key=lambda run: run.final.decode_seconds)
    final = replace(
        a.final,
        encoder_seconds=prefill.final.encoder_seconds,
        prefill_seconds=prefill.final.prefill_seconds,
        compress_seconds=prefill.final.compress_seconds,
        decode_seconds=decode.final.decode_seconds,
    )
    return replace(a, final=final, prefill_seconds=prefill.prefill_seconds, timed=a.timed + b.timed)


def warm(question: Question) -> None:
    """A few passes that nobody measures, so that the figures are not those of first calls."""
    warm_up(question.engine.model, question.prompt, question.methods)


def compressed(
    question: Question,
    on_text: Callable[[str], None] | None = None,
    at_prompt: Callable[[Session], None] = lambda session: None,
    count_flops: bool = False,
) -> Run:
    """Answer inside a session; what it warns about goes into the options' warnings.

    Args:
        at_prompt: called when the whole prompt is in the cache, before the first token is decoded.
        count_flops: count those of the methods' own work, too, at the price of some time.
    """
    engine, request = question.engine, replace(question.request, count_flops=count_flops)
    entries: list[tuple[int, float, int]] = []

    def prompt_read(session: Any) -> None:
        lengths = [layer.lengths[0] for layer in session.cache.compressed()]
        entries.extend((int(x.min()), float(x.float().mean()), int(x.max())) for x in lengths)
        at_prompt(session)

    visual = VisualTokens(engine.model) if question.prompt.inputs else None
    with visual or nullcontext():
        answer = engine.answer(request, on_text, prompt_read)
    question.options.warnings += [note for note in answer.notes if note not in question.options.warnings]
    assert isinstance(answer.session, Session)
    final = charged(answer.session.stats, answer.kept, answer.session.shape)
    run = Run(answer, final, final.prefill_seconds, entries, visual, thinking=_thinking(question, answer))
    if question.later:  # generate() encodes images before it calls the model, a plain call inside the model
        run.prefill_seconds -= run.final.encoder_seconds
    return run


def stock(question: Question, on_text: Callable[[str], None] | None = None) -> Run:
    """Answer with the uncompressed model, context and question together."""
    answer = question.engine.answer(question.request.stock(), on_text)
    assert isinstance(answer.session, StockSession)
    return Run(answer, answer.final, answer.final.prefill_seconds, thinking=_thinking(question, answer))


def _thinking(question: Question, answer: Answer) -> Thinking | None:
    engine = question.engine
    marks = [method.mark for method in question.methods if isinstance(method, ReasoningMethod)]
    try:
        mark = end_of_thinking(engine.model, engine.tokenizer, marks[0] if marks else None)
    except UnsupportedModelError:
        return None
    return thinking_in(answer.ids, mark, latent_token(engine.tokenizer))
