"""Several questions about one context, which is read once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from laconic.cli import common
from laconic.cli.question import Question
from laconic.cli.reading import reading
from laconic.cli.record import method_dict
from laconic.engine.context import Context
from laconic.engine.request import Answer, Request
from laconic.engine.stored import read_stored
from laconic.measure.units import seconds, size
from laconic.memory.store import SegmentStore


def answer_all(
    question: Question, questions: Sequence[str], compare: bool, as_json: bool, store: SegmentStore | None = None
) -> None:
    """Answer each of `questions` from the compressed context alone, and print them with what that cost.

    Args:
        question: the first, with its prompt.
        compare: the uncompressed answers beside them; that context, too, is read once.
        store: which may hold the context already, and keeps it.
    """
    console, options = common.out(), question.options
    engine, request, tokens = question.engine, question.request, len(question.prompt.context)
    began = time.perf_counter()
    with reading(engine.model, tokens):
        context = engine.read(request) if store is None else read_stored(engine, request, store)
    took = time.perf_counter() - began
    full = None
    if compare:
        with reading(engine.model, tokens, "uncompressed: "):
            full = engine.read(_uncompressed(request))
    answers, beside = [], []
    for text in questions:
        answers.append(answer := context.ask(text, answer_prefix=options.answer_prefix))
        if full is not None:
            beside.append(full.ask(text, answer_prefix=options.answer_prefix))
        if as_json:
            continue
        console.print(common.clean(text), style="bold", markup=False, soft_wrap=True)
        console.print(common.clean(options.answer_prefix + answer.text), markup=False, soft_wrap=True)
        if beside and beside[-1].ids != answer.ids:
            console.print(
                "uncompressed: " + common.clean(options.answer_prefix + beside[-1].text), markup=False, soft_wrap=True
            )
    notes = dict.fromkeys([*options.warnings, *context.notes, *(note for answer in answers for note in answer.notes)])
    if as_json:
        common.emit(_record(question, context, took, questions, answers, beside, list(notes)))
        return
    stats, how = context.stats, "taken from the store" if context.stored else "read once"
    told = (
        f"\n{stats.tokens_in:,.0f} tokens {how} in {seconds(took)}, "
        f"{size(stats.kv_bytes)} of {size(stats.kv_bytes_full)} kept; "
        f"{seconds(_first(answers))} to the first token of an answer"
    )
    if beside:
        same = sum(a.ids == b.ids for a, b in zip(answers, beside, strict=True))
        told += (
            f" (uncompressed {seconds(_first(beside))}); {same} of {len(answers)} answers agree with the uncompressed ones"
        )
    console.print(told, style="dim", markup=False, soft_wrap=True)
    for note in notes:
        console.print(f"warning: {common.clean(note)}", style="yellow", markup=False)


def _uncompressed(request: Request) -> Request:
    """The same context for a session that stores everything."""
    if (saved := request.saved) is not None:
        request = replace(request, context=saved.text, system=saved.system, saved=None, prompt=None)
    return replace(request, methods=(), protect=())


def _first(answers: Sequence[Answer]) -> float:
    """Mean seconds to the first token."""
    return sum(answer.first_seconds for answer in answers) / len(answers)


def _record(
    question: Question,
    context: Context,
    took: float,
    questions: Sequence[str],
    answers: Sequence[Answer],
    beside: Sequence[Answer],
    notes: list[str],
) -> dict[str, Any]:
    stats = context.stats
    rows = [{"question": text, **_row(answer)} for text, answer in zip(questions, answers, strict=True)]
    for row, answer, uncompressed in zip(rows, answers, beside, strict=False):
        row["compared"] = {**_row(uncompressed), "agree": answer.ids == uncompressed.ids}
    return {
        "model": question.options.model_name,
        "methods": [method_dict(method) for method in context.session.methods],
        "context_tokens": len(context.ids),
        "asked": stats.asked,
        "achieved": stats.achieved,
        "kv_bytes": stats.kv_bytes,
        "kv_bytes_full": stats.kv_bytes_full,
        "stored": context.stored,
        "context_seconds": took,
        "answers": rows,
        "warnings": notes,
    }


def _row(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "finish": answer.finish,
        "tokens_out": len(answer.ids),
        "first_seconds": answer.first_seconds,
        "seconds_per_token": answer.seconds_per_token,
    }
