"""`laconic run`: one question about one context, answered from a compressed memory, with the figures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laconic.cli import common
from laconic.cli.options import Json, Options, with_options

if TYPE_CHECKING:
    from laconic.cli.question import Question

REPEATED_BELOW = 10.0
"""Seconds of the uncompressed run up to which `--compare` runs both once more, in turn, and shows the faster times: whatever
runs first is at a disadvantage, and so is whatever runs beside another program."""


@with_options
def run(
    options: Options,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            "-q",
            help="What to ask about the context; repeat it with --later or --cache, and the context is read once.",
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--cache",
            help="Compress the context once into this file, whatever the question; when it exists, ask it: no --context "
            "needed.",
        ),
    ] = None,
    store: Annotated[
        bool,
        typer.Option("--store", help="With --later: keep the compressed context, and take it from there the next time."),
    ] = False,
    memory: Annotated[
        str | None, typer.Option("--memory", help="A memory that `laconic compress` has written, in the place of a context.")
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="The uncompressed model beside it.")] = False,
    as_json: Json = False,
) -> None:
    """Answer a question about a text, images or sound from a compressed memory, and say what that cost.

    Example: laconic run --method NAME --keep 0.1 --context notes.txt --question "What is the code for falcon?" --compare
    """
    given = options.sees or options.hears
    if memory is not None and (cache is not None or given):
        raise common.InputError("--memory stands for a text; drop --cache, --image, --video and --audio, or --memory.")
    if cache is not None and given:
        raise common.InputError("--cache holds texts; drop --image, --video and --audio, or --cache.")
    if store and (cache is not None or memory is not None or compare or not options.later):
        raise common.InputError("--store goes with --later, and without --cache, --memory and --compare.")
    if question is not None and not all(text.strip() for text in question):
        raise common.InputError("--question: the question is empty; ask something, or leave it out.")
    questions = question or [""]
    options.question = questions[0]
    several = len(questions) > 1
    if several and not (options.later or cache):
        raise common.InputError(
            f"{len(questions)} questions: a context is read once for all of them only before they are known; add "
            "--later, or --cache FILE."
        )
    if options.hears:
        with common.spinner("importing torch and transformers"):
            from laconic.cli import transcript
        if transcript.is_for(options):
            transcript.write_down(options, compare, as_json)
            return
    context = options.text() if cache is None and memory is None else ""
    with common.spinner("importing torch and transformers"):
        from laconic.cli import question as building
        from laconic.cli import saved_context, saved_memory
    if memory is not None:
        asked = saved_memory.question_of(options, Path(memory).expanduser())
    elif cache is None:
        asked = building.question_of(options, context)
    else:
        asked = saved_context.question_of(options, Path(cache).expanduser())
    if several or store:
        from laconic.cli.several import answer_all
        from laconic.memory.store import SegmentStore

        answer_all(asked, questions, compare, as_json, SegmentStore() if store else None)
        return
    _answer(asked, compare, as_json)


def _answer(question: Question, compare: bool, as_json: bool) -> None:
    from laconic.cli import answering
    from laconic.cli.panel import panel
    from laconic.cli.reading import reading
    from laconic.cli.record import record

    console, prefix = common.out(), common.clean(question.options.answer_prefix)
    live = console.is_terminal and not as_json
    model, tokens = question.engine.model, question.prompt.tokens
    with common.spinner("warming up"):
        answering.warm(question)
    shown = ""
    with reading(model, tokens) as end_of_bar:

        def show(text: str) -> None:
            nonlocal shown
            end_of_bar()
            text = common.clean(text)
            console.print(text if shown else prefix + text, end="", markup=False, soft_wrap=True)
            console.file.flush()
            shown += text

        done = answering.compressed(question, show if live else None, count_flops=True)
    if live:
        console.print("" if shown else prefix, markup=False)
    stock = None
    if compare:
        began = time.perf_counter()
        with reading(model, tokens, "uncompressed: "):
            stock = answering.stock(question)
        if time.perf_counter() - began < REPEATED_BELOW:
            with common.spinner("both once more, for their times"):
                done = answering.faster(done, answering.compressed(question))
                stock = answering.faster(stock, answering.stock(question))
    if as_json:
        common.emit(record(question, done, stock))
        return
    if not live:
        console.print(prefix + common.clean(done.answer.text), markup=False, soft_wrap=True)
    console.print(panel(question, done, stock))
