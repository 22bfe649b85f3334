"""`laconic inspect` on a text: which tokens every layer and head stored when the prompt had been read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.cli import answering, common
from laconic.cli.answering import Run
from laconic.cli.compress import figures
from laconic.cli.options import Options
from laconic.cli.panel import in_words
from laconic.cli.picked import is_picked
from laconic.cli.question import Question, question_of
from laconic.cli.record import method_dict, mode
from laconic.engine.request import Answer
from laconic.report.dropped import dropped
from laconic.report.kept import Kept, Subject, kept_page
from laconic.report.pieces import pieces
from laconic.session import Session
from laconic.shortening.contract import PromptMethod
from laconic.shortening.shorten import Shortened
from laconic.specs import create_methods


def inspect_text(options: Options, context: str, keeps: Sequence[float], page: Path | None, as_json: bool) -> None:
    """The command.

    Args:
        context: the text. `page`: the file to write.
        keeps: shares to keep; the first is that of the options, what is said of one run is said of that.

    Raises:
        InputError: several shares for methods that name their own.
    """
    if len(keeps) > 1 and is_picked(options):
        raise common.InputError("--method picked was found out for one budget at a time; give one --keep.")
    question = question_of(options, context)
    if len(keeps) > 1 and shortened(question):
        raise common.InputError(f"--method {shortened(question)[0].method} shortens the text itself; give one --keep.")
    run, kept = answered(question, f"{keeps[0]:g}" if keeps else "as given")
    levels = [kept]
    for keep in dict.fromkeys(keeps[1:]):
        levels.append(answered(question.with_methods(create_methods(options.method or (), keep=keep)), f"{keep:g}")[1])
    with common.spinner("the uncompressed model answers"):
        full = answering.stock(question).answer
    if question.methods:
        whole: dict[int, list[Sequence[int]]] = {
            layer: [range(kept.tokens)] * len(heads) for layer, heads in kept.indices.items()
        }
        levels.append(Kept(kept.tokens, whole, label="full", answer=options.answer_prefix + full.text))
    if page is not None:
        page.write_text(_page(question, run, full, levels), encoding="utf-8")
    if as_json:
        common.emit(record(question, run, full, levels, page))
        return
    console = common.out()
    console.print(common.clean(options.answer_prefix + run.answer.text), markup=False, soft_wrap=True)
    for warning in options.warnings:
        common.err().print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    budget = run.answer.compressed
    console.print(
        f"{page}: {question.prompt.tokens:,} tokens, asked {budget.asked:.2%}, achieved {budget.achieved:.2%}",
        markup=False,
        soft_wrap=True,
    )


def answered(question: Question, label: str) -> tuple[Run, Kept]:
    """Run, and read the cache once the prompt is in it and before anything is decoded; `label` names the budget."""
    indices: dict[int, list[Any]] = {}

    def at_prompt(session: Session) -> None:
        cache = session.cache
        assert cache is not None
        for layer, number in zip(cache.compressed(), cache.layer_ids, strict=True):
            indices[number] = [session.kept(number, head).tolist() for head in range(layer.lengths.shape[1])]

    with common.spinner("reading and answering"):
        run = answering.compressed(question, at_prompt=at_prompt)
    stream, first = stream_of(question, run)
    budget, text = run.answer.compressed, question.options.answer_prefix + run.answer.text
    return run, Kept(question.prompt.tokens, indices, stream, first, label, budget.asked, budget.achieved, text)


def stream_of(question: Question, run: Run) -> tuple[list[int] | None, int | None]:
    """Tokens that ran on after the layer that chose them, and the first layer without the others; None where all ran on."""
    prompt, chunk = question.prompt, question.request.chunk or 0
    chosen: set[int] = set()
    source, number = None, 0
    events = run.session.trace.events
    layer = next((e.layer for e in events if e.stream is not None), None)
    for event in events:
        if event.layer != layer:
            continue
        start, number = number * chunk, number + 1
        if event.stream is not None:
            source = layer
            chosen |= {start + i for i in event.stream[0].tolist()}
        else:  # all tokens of this chunk ran on
            chosen |= set(range(start, min(start + chunk, prompt.tokens)))
    if source is None:
        return None, None
    if question.later:
        chosen |= set(range(len(prompt.context), prompt.tokens))
    return sorted(i for i in chosen if i < prompt.tokens), source + 1


def record(question: Question, run: Run, full: Answer, levels: Sequence[Kept], page: Path | None) -> dict[str, Any]:
    """The JSON of `inspect`; the keys are stable. `levels`: the run's own first."""
    options, prompt, kept = question.options, question.prompt, levels[0]
    return {
        "model": options.model_name,
        "methods": [method_dict(m) for m in question.methods],
        "mode": mode(question),
        "chat_template": prompt.templated,
        "answer": run.answer.text,
        "uncompressed": full.text,
        "agree": run.answer.ids == full.ids,
        "answer_prefix": options.answer_prefix,
        "asked": run.answer.compressed.asked,
        "achieved": run.answer.compressed.achieved,
        "tokens": prompt.tokens,
        "question_at": len(prompt.context),
        "ids": prompt.ids,
        "kept": _indices(kept),
        "budgets": [
            {"label": one.label, "asked": one.asked, "achieved": one.achieved, "answer": one.answer, "kept": _indices(one)}
            for one in levels
            if one.label != "full"
        ],
        "stream": kept.stream,
        "stream_from": kept.stream_from,
        "out": None if page is None else str(page),
        "shortened": [{"kept": list(done.kept), "pieces": list(done.pieces)} for done in shortened(question)],
        "warnings": options.warnings,
    }


def _indices(kept: Kept) -> dict[str, dict[str, list[int]]]:
    return {str(layer): {str(h): list(k) for h, k in enumerate(heads)} for layer, heads in kept.indices.items()}


def _page(question: Question, run: Run, full: Answer, levels: Sequence[Kept]) -> str:
    options, prompt, budget, kept = question.options, question.prompt, run.answer.compressed, levels[0]
    facts = [
        ("model", options.model_name),
        ("method", "; ".join(map(str, question.methods)) or "none: everything is stored"),
        ("question", in_words(question)),
        ("prompt", f"{prompt.tokens:,} tokens, {'chat template applied' if prompt.templated else 'plain text'}"),
        ("kept", f"asked {budget.asked:.2%}, achieved {budget.achieved:.2%}"),
    ]
    if options.protect:
        facts.append(("protected", "; ".join(options.protect)))
    if kept.stream is not None:
        facts.append(("stream", f"{len(kept.stream):,} of {kept.tokens:,} tokens travelled on to layer {kept.stream_from}"))
    facts.append(("answer", options.answer_prefix + run.answer.text))
    same = "the same" if run.answer.ids == full.ids else options.answer_prefix + full.text
    facts.append(("uncompressed", same))
    name = " + ".join(m.name for m in question.methods) or "no method"
    subject = Subject(facts, len(prompt.context), options.warnings)
    ordered = sorted(levels, key=lambda one: one.asked)
    cut = pieces(question.engine.tokenizer, prompt.ids)
    before = "".join(dropped(done.pieces, done.kept, done.text, figures(done)) for done in shortened(question))
    return kept_page(f"What {name} kept", subject, ordered, cut, prompt.ids, ordered.index(kept), before)


def shortened(question: Question) -> list[Shortened]:
    """What became of the context before the model read it, by each method that shortens texts."""
    return [m.done for m in question.methods if isinstance(m, PromptMethod) and m.done is not None]
