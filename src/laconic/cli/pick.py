"""`laconic pick`: which method to use on a model of one's own, at which budget, found out on that model in minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laconic.cli import common
from laconic.cli.options import Device, Dtype, Json, Options, Trust, model_for_own_documents
from laconic.measure.units import seconds, size

if TYPE_CHECKING:
    from rich.table import Table

    from laconic.bench.pick.picking import Picking
    from laconic.bench.pick.verdict import Pick

SUITE, LENGTH, MOST = "facts", 1024, 40
"""What is asked when no data is given: a task, tokens of a document, and documents."""
MODES = {"later": "question asked later: the context is compressed first", "in view": "question in the prompt"}


def pick(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="testbed/lm (default; with --data smollm2), a folder, or a Hugging Face id."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Your own documents and questions (JSON lines, see the guide)."),
    ] = None,
    task: Annotated[
        str, typer.Option("--task", help="A task of text or documents that is asked where no data is given.")
    ] = SUITE,
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="How long it may take.")] = 10.0,
    methods: Annotated[
        list[str] | None, typer.Option("--methods", help="What is tried in place of the usual; repeat.")
    ] = None,
    keep: Annotated[str | None, typer.Option("--keep", help="Budgets that are tried, such as 0.5,0.1.")] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Find out which method to use on a model, and write it down for `--method picked`.

    The model answers questions uncompressed; methods that keep its answers at a budget go on, the others are dropped.
    Example: laconic pick --model smollm2 --minutes 5, then: laconic run --model smollm2 --method picked ...
    """
    if data and model is None:
        model = model_for_own_documents()
    options = Options(model=model, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
    with common.spinner("importing torch and transformers"):
        from laconic.bench.pick.verdict import place
    keeps = _keeps(keep)
    made = _picking(options, data, task, methods, keeps)
    found = _run(made, minutes)
    file = place(found.fingerprint)
    found.save(file)
    if as_json:
        refused = [{"method": name, "keep": k, "why": why} for (name, k), why in made.refused.items()]
        common.emit({**asdict(found), "refused": refused, "file": str(file)})
        return
    _show(found, file)
    for line in _left_out(made.refused):
        common.err().print(line, style="yellow", markup=False, soft_wrap=True)


def _left_out(refused: Mapping[tuple[str, float | None], str]) -> list[str]:
    """One line for each reason, with all that it holds for."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for (name, k), why in refused.items():
        reasons.setdefault(why, {}).setdefault(name, []).append("all" if k is None else f"{k:g}")
    lines = []
    for why, keeps in reasons.items():
        told = "; ".join(f"{name} at keep {', '.join(budgets)}" for name, budgets in keeps.items())
        lines.append(f"left out: {told}: {why}")
    return lines


def _keeps(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(piece) for piece in text.split(",")]
    except ValueError as error:
        raise common.InputError(f"--keep {text}: give shares such as 0.5,0.1.") from error


def _picking(options: Options, data: str | None, name: str, methods: list[str] | None, keeps: list[float] | None) -> Picking:
    """Everything that can be refused before the model is loaded, then the model."""
    from laconic.bench.pick.picking import Picking, plan
    from laconic.bench.specs import check_spec
    from laconic.cli.question import engine_of
    from laconic.specs import split_methods
    from laconic.tasks import find_task

    names = split_methods(methods) if methods else plan()["methods"]
    budgets = list(dict.fromkeys(keeps or plan()["keeps"]))
    for spec in names:
        for budget in budgets:
            check_spec(spec, budget)
    task = find_task("own").opened(folder=Path(data)) if data else find_task(name)
    if task.modality == "image" or (task.from_files and not data):
        raise common.InputError(
            f"--task {name}: pick asks about texts; its questions come from a task of text, or from --data."
        )
    engine = engine_of(options)
    if not data:
        task = task.opened(tokens=LENGTH, tokenizer=engine.tokenizer)
    samples = task.samples(0, task.count or MOST)
    told = Path(data).name if data else f"{name}, {LENGTH} tokens"
    return Picking(engine, samples, options.model_name, told, names, budgets)


def _run(made: Picking, minutes: float) -> Pick:
    """Hold the contests, with a bar on a terminal that is full when the time is up."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = common.err()
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("the uncompressed model answers", total=60 * minutes)

        def tell(mode: str, method: str, keep: float, known: int) -> None:
            task = progress.tasks[0]
            progress.update(
                bar, completed=task.elapsed or 0.0, description=f"{mode} {keep:g} {method[:28]:28} {known} questions known"
            )

        return made.run(minutes, tell)


def _show(found: Pick, file: Path) -> None:
    from laconic.bench.pick.verdict import ENOUGH

    console, own = common.out(), found.uncompressed
    if not console.is_terminal:
        console.width = 200  # a file or a pipe has room for all columns
    console.print(
        f"{found.model} on {found.data}: it answers {own['answered']:.0f} of {own['asked']:.0f} questions about "
        f"{own['documents']:.0f} documents uncompressed; all shares are of those. {found.minutes:.1f} minutes.",
        markup=False,
    )
    for mode, title in MODES.items():
        console.print(f"\n[bold]{title}[/]")
        if not any(one.mode == mode for one in found.verdicts):
            console.print("too little time to ask enough questions; give more --minutes", style="yellow")
        else:
            console.print(_table(found, mode))
            for one in found.verdicts:
                if one.mode == mode and one.rivals:
                    others = ", ".join(f"{name} {share:.0%}" for name, share in one.rivals.items())
                    told = f"  {one.keep:g}: no clear winner; {one.questions} questions do not tell it from {others}"
                    console.print(told, style="dim", markup=False, soft_wrap=True)
            best = found.choose(mode)
            if best.share >= ENOUGH:
                console.print(
                    f"use {best.method} at {best.keep:g}: {best.share:.0%} of the answers stay", style="green", markup=False
                )
            else:
                console.print(f"no budget tried keeps {ENOUGH:.0%} of the answers", style="yellow")
    console.print(
        f"\nwrote {file}; laconic run --model {found.model} --method picked follows it", markup=False, soft_wrap=True
    )


def _table(found: Pick, mode: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("keep", "use", "same answers", "questions", "KV bytes", "reading", "per token"):
        table.add_column(name, justify="left" if name == "use" else "right", no_wrap=True)
    for one in found.verdicts:
        if one.mode != mode:
            continue
        table.add_row(
            f"{one.keep:g}",
            escape(one.method),
            f"{one.share:.0%} [dim]{one.low:.0%} to {one.high:.0%}[/]",
            str(one.questions),
            f"{one.kv_share:.0%}",
            "-" if one.read_seconds is None else seconds(one.read_seconds),
            "-" if one.token_seconds is None else seconds(one.token_seconds),
        )
    own = found.uncompressed
    table.add_row(
        "",
        "uncompressed",
        "",
        "",
        size(own["kv_bytes"]),
        seconds(own["read_seconds"]),
        seconds(own["token_seconds"]),
        style="dim",
    )
    return table
