"""`laconic bench`: tasks x methods x budgets x lengths x modes on one model; results.jsonl, a table and an HTML report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from laconic.budget import Budget, share
from laconic.cli import common
from laconic.cli.options import IMAGE_MODEL, LOCAL, model_for_own_documents, ray_address
from laconic.cli.progress import rows_shown
from laconic.method import check_name
from laconic.specs import split_methods

if TYPE_CHECKING:
    from laconic.bench import Bench, Grid, Store
    from laconic.bench.spread import Spread
    from laconic.bench.summary import Line

OWN = "own"
"""The task, and the preset, of a user's own documents and questions."""
T = TypeVar("T")
Many = list[str] | None


def bench(
    model: Annotated[
        str | None,
        typer.Option(
            help="testbed/lm (default; over images testbed/vlm; over documents, and your own, smollm2), a folder, or a "
            "Hugging Face id."
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="demo (default), quick, leaderboard or full; real: documents on a real model; own, with --data FILE; over "
            "images: images (default for testbed/vlm and image tasks), images_leaderboard or public; the other options "
            "replace parts of it."
        ),
    ] = None,
    tasks: Annotated[Many, typer.Option(help="Task names, all of one modality; commas or repeats, here and below.")] = None,
    methods: Annotated[
        Many,
        typer.Option(help="Names of `laconic methods`, parameters as NAME:key=value,key=value; 'all'; patterns with *."),
    ] = None,
    keep: Annotated[Many, typer.Option(help="Shares to keep, e.g. 0.5,0.1 or 50%,10%.")] = None,
    lengths: Annotated[Many, typer.Option(help="Tokens of a sample of text, 128 or more.")] = None,
    modes: Annotated[
        Many,
        typer.Option(help="later, in view; of text also turns later, turns in view (several questions)."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples per task, length and mode.")] = None,
    seed: Annotated[int | None, typer.Option(help="Samples to leave out at the start; also seeds the bootstrap.")] = None,
    data: Annotated[
        Many,
        typer.Option(
            help="A file of your own documents and questions (JSON lines, see the guide), or the folder of a public image "
            "benchmark, such as mme=FOLDER; runs it if no --tasks are given."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that are answered at once.")] = 16,
    out: Annotated[Path, typer.Option(help="Folder for results.jsonl, table.md and report.html.")] = Path("bench"),
    executor: Annotated[
        str,
        typer.Option(
            help="local; ray: spread over --workers actors on this machine; ray://HOST:10001 or ray://auto: on a running "
            "cluster."
        ),
    ] = LOCAL,
    workers: Annotated[int, typer.Option(min=1, help="Actors of --executor ray, of one processor each.")] = 2,
    report_only: Annotated[bool, typer.Option("--report-only", help="Rebuild table and report from results.jsonl.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")] = False,
) -> None:
    """Compare methods on trained behaviour, at the cost that they actually reach.

    Every finished row is on disk at once: after Ctrl-C or a crash the same command continues where it stopped.
    """
    for spec in split_methods(methods or ()):
        if "*" not in spec and spec not in ("all", "none"):
            check_name(spec.partition(":")[0].strip())
    keeps = _many(keep, share, "--keep")
    for one in keeps or ():
        Budget(one)  # refused before anything is imported
    folders = _folders(data)
    from laconic.bench.outputs import RESULTS, write_outputs
    from laconic.bench.store import Store, read

    if report_only:
        rows = read(out / RESULTS)
        _show(write_outputs(rows, out, rows[0]["grid_seed"] if rows else 0), out, as_json)
        return
    names = _many(tasks, str, "--tasks")
    grid = _grid(model, preset, names, folders).changed(
        tasks=names,
        methods=split_methods(methods) if methods else None,
        keeps=keeps,
        lengths=_many(lengths, int, "--lengths"),
        modes=_many(modes, str, "--modes"),
        samples=samples,
        seed=seed,
    )
    grid.check()
    common.quiet()
    with Store(out / RESULTS) as store, ExitStack() as opened:
        named = model or _default_model(grid)
        made = (
            _load(named, grid, batch)
            if executor == LOCAL
            else opened.enter_context(_spread(named, grid, batch, workers, ray_address(executor)))
        )
        try:
            _run(made, store, as_json)
        except KeyboardInterrupt:
            common.err().print(
                f"stopped: {len(store)} rows are safe in {store.path}; run the same command again to continue.",
                style="yellow",
            )
            raise typer.Exit(common.INTERRUPTED) from None
        lines = write_outputs(list(store.rows.values()), out, grid.seed) if len(store) else []
    _show(lines, out, as_json, made.failures, made.refused)
    if made.failures or len(made.refused) == len(grid.columns()) - 1:
        raise typer.Exit(common.FAILED)


def _many(texts: Iterable[str] | None, kind: Callable[[str], T], option: str) -> tuple[T, ...] | None:
    """Values of a repeatable, comma-separated option; None when it was not given."""
    if not texts:
        return None
    pieces = [piece.strip() for text in texts for piece in text.split(",") if piece.strip()]
    try:
        return tuple(kind(piece) for piece in pieces)
    except ValueError as error:
        raise common.InputError(f"{option} {','.join(pieces)}: every value must be a number.") from error


def _folders(data: Iterable[str] | None) -> tuple[tuple[str, Path], ...]:
    """(task, files) pairs from ``mme=FOLDER``, or from the one file of a user's own questions."""
    found: list[tuple[str, Path]] = []
    for text in data or ():
        name, _, folder = text.partition("=")
        file = Path(text).expanduser()
        if text.endswith((".jsonl", ".json")) and not file.exists():
            raise common.InputError(f"--data {text}: no such file.")
        if file.is_file():
            found.append((OWN, Path(text)))
        elif folder:
            found.append((name, Path(folder)))
        else:
            raise common.InputError(
                f"--data {text} is no file of your own questions; or name the benchmark and its folder, such as mme=FOLDER."
            )
    if len({name for name, _ in found}) < len(found):
        raise common.InputError("--data: give one place for each task; several files of your own go into one.")
    return tuple(found)


def _grid(model: str | None, preset: str | None, tasks: Sequence[str] | None, folders: tuple[tuple[str, Path], ...]) -> Grid:
    """The preset, by name or by what is to be run."""
    from laconic.bench.comparison import comparisons
    from laconic.bench.grid import common_modality
    from laconic.bench.presets import preset as find

    if preset is None:
        modality = "image" if model == IMAGE_MODEL else common_modality(tasks or ()) or "text"
        own = any(name == OWN for name, _ in folders)
        preset = OWN if own else "public" if folders else comparisons()[modality].preset
    grid = find(preset)
    if not folders:
        return grid
    names = tuple(name for name, _ in folders)
    if common_modality(names) not in (None, grid.modality):
        raise common.InputError(
            f"--data {names[0]} is no {grid.modality} task, and preset {preset} runs {grid.modality} tasks."
        )
    sizes = {"lengths": (0,)} if names == (OWN,) else {}
    return grid.changed(folders=folders, tasks=names, **sizes)


def _default_model(grid: Grid) -> str:
    return model_for_own_documents() if OWN in grid.tasks else grid.comparison.model


def _load(model: str, grid: Grid, batch: int) -> Bench:
    import laconic
    from laconic.bench import Bench

    with common.spinner(f"loading {model}"):
        network, reader = laconic.load(model)
    return Bench(network, reader, _name_of(model), grid, batch)


def _spread(model: str, grid: Grid, batch: int, workers: int, address: str | None) -> Spread:
    from laconic.bench.spread import Spread

    return Spread(model, _name_of(model), grid, batch, workers, address)


def _name_of(model: str) -> str:
    """What rows call a model: no paths in results."""
    return Path(model).expanduser().resolve().name if Path(model).expanduser().is_dir() else model


def _run(made: Bench | Spread, store: Store, as_json: bool) -> None:
    """Run what is left, and show how far that is."""
    left = made.pending(store)
    total = made.total
    console = common.err()
    if store.repaired:
        console.print(f"{store.path}: a torn last line was repaired.", style="yellow")
    if not as_json:
        there = f", {total - len(left)} of them there already" if len(left) < total else ""
        common.out().print(f"{total} rows on {made.name}{there}; the chat template is always applied.")
    if not left:
        return
    shown = common.out().is_terminal and console.is_terminal
    began, before = time.perf_counter(), len(store)
    with rows_shown(console, len(left), shown) as finished:
        made.run(store, lambda cell: finished(f"{cell.task} {made.grid.comparison.shown(cell.mode)} {cell.method[:24]:24}"))
    if not as_json:
        done = len(store) - before
        common.out().print(f"{done} row{'s' if done != 1 else ''} in {time.perf_counter() - began:.1f} s")


def _show(
    lines: list[Line],
    out: Path,
    as_json: bool,
    failures: Sequence[tuple[str, str]] = (),
    refused: Mapping[tuple[str, float | None], str] = MappingProxyType({}),
) -> None:
    """Print the table (or JSON), where the files are, what was refused, and what failed."""
    from laconic.bench.outputs import REPORT, RESULTS, TABLE
    from laconic.bench.table import foot, rich_table, sections

    files = {name: str(out / name) for name in (RESULTS, TABLE, REPORT)}
    if as_json:
        failed: list[dict[str, Any]] = [{"key": key, "error": message} for key, message in failures]
        left_out = [{"method": name, "keep": keep, "why": why} for (name, keep), why in refused.items()]
        shown = [line.as_dict() for line in lines]
        common.emit({"lines": shown, "failures": failed, "refused": left_out, "files": files})
    elif lines:
        console = common.out()
        if not console.is_terminal:
            console.width = 200  # a file or a pipe has room for all columns
        for section in sections(lines):
            console.print(rich_table(lines, section, console.width))
        console.print(foot(lines), style="dim")
        console.print("wrote " + ", ".join(files.values()))
    for (name, keep), why in {} if as_json else refused.items():
        common.err().print(f"left out: {name} at keep {keep}: {why}", style="yellow", markup=False)
    for message in dict.fromkeys(message for _, message in failures):
        keys = [key for key, text in failures if text == message]
        common.err().print(f"failed: {len(keys)} rows such as {keys[0]}: {message}", style="red", markup=False)
