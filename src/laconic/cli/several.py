"""Several questions about one context, which is read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from laconic.cli import common
from laconic.cli.question import Question
from laconic.cli.reading import reading
from laconic.cli.record import method_dict
from laconic.cli.units import seconds, size
from laconic.engine.context import Context
from laconic.engine.request import Answer
from laconic.engine.stored import read_stored
from laconic.memory.store import SegmentStore


def answer_all(question: Question, questions: Sequence[str], as_json: bool, store: SegmentStore | None = None) -> None:
    """Answer each of `questions` from the compressed context alone, and print them with what that cost.

    Args:
        question: the first, with its prompt.
        store: which may hold the context already, and keeps it.
    """
    console, options = common.out(), question.options
    engine, request = question.engine, question.request
    with reading(engine.model, len(question.prompt.context)):
        context = engine.read(request) if store is None else read_stored(engine, request, store)
    answers = []
    for text in questions:
        answers.append(answer := context.ask(text, answer_prefix=options.answer_prefix))
        if as_json:
            continue
        console.print(common.clean(text), style="bold", markup=False, soft_wrap=True)
        console.print(common.clean(options.answer_prefix + answer.text), markup=False, soft_wrap=True)
    notes = dict.fromkeys([*options.warnings, *context.notes, *(note for answer in answers for note in answer.notes)])
    if as_json:
        common.emit(_record(question, context, questions, answers, list(notes)))
        return
    stats, first = context.stats, [answer.first_seconds for answer in answers]
    how = "from the store" if context.stored else "read once"
    console.print(
        f"\n{stats.tokens_in:,.0f} tokens {how}, {size(stats.kv_bytes)} of {size(stats.kv_bytes_full)} kept; "
        f"{seconds(sum(first) / len(first))} to the first token of an answer",
        style="dim",
        markup=False,
    )
    for note in notes:
        console.print(f"warning: {common.clean(note)}", style="yellow", markup=False)


def _record(
    question: Question, context: Context, questions: Sequence[str], answers: Sequence[Answer], notes: list[str]
) -> dict[str, Any]:
    stats = context.stats
    return {
        "model": question.options.model_name,
        "methods": [method_dict(method) for method in context.session.methods],
        "context_tokens": len(context.ids),
        "asked": stats.asked,
        "achieved": stats.achieved,
        "kv_bytes": stats.kv_bytes,
        "kv_bytes_full": stats.kv_bytes_full,
        "stored": context.stored,
        "answers": [
            {
                "question": text,
                "answer": answer.text,
                "finish": answer.finish,
                "tokens_out": len(answer.ids),
                "first_seconds": answer.first_seconds,
                "seconds_per_token": answer.seconds_per_token,
            }
            for text, answer in zip(questions, answers, strict=True)
        ],
        "warnings": notes,
    }
