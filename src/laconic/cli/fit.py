"""`laconic fit`: what a method learns or measures about one model, written as an artifact."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.cli import common, options
from laconic.method import check_name

if TYPE_CHECKING:
    from laconic.artifact import Artifact
    from laconic.fit import Fit

Name = Annotated[str | None, typer.Argument(help="A method; without one, all that can be fitted is listed.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Artifact to write (.safetensors), or a folder for it; default: NAME-MODEL.safetensors here."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as name=value; repeat it. One that does not exist lists them all."),
]
Explain = Annotated[bool, typer.Option("--settings", help="Say what the settings of NAME mean, with their defaults.")]
Data = Annotated[str | None, typer.Option(metavar="FILE", help="The same as --set data=FILE: what it is fitted to.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of this training.")]
Convert = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--convert", metavar="OLD NEW", help="Write a recipe or weights from before there were artifacts as one."),
]


def fit(
    name: Name = None,
    model: options.Model = "testbed/lm",
    out: Out = None,
    settings: Settings = None,
    explain: Explain = False,
    data: Data = None,
    resume: Resume = False,
    convert: Convert = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    trust_remote_code: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Learn what a method needs to know about a model, or train its network beside the frozen model.

    Pass the file as artifact=FILE of the method. A codec is trained beside no model, and --model is not read.

    A training keeps a checkpoint in --out, or in NAME-MODEL.training beside a file; --resume goes on from there.
    """
    if convert is not None:
        _convert(*convert, as_json)
    elif name is None:
        if explain:
            raise common.InputError("--settings: of which method? Give its name; without one, all are listed.")
        _list(as_json)
    else:
        check_name(name)
        if explain:
            _explain(name, as_json)
            return
        settings = [*(settings or []), *([] if data is None else [f"data={data}"])]
        _fit(name, model, out, settings, resume, dtype, device, trust_remote_code, as_json)


def deprecated(verb: str) -> Any:
    """`laconic fit` under its old name `verb`, with a warning."""

    def old(
        name: Annotated[str, typer.Argument(help="A method.")],
        model: options.Model = "testbed/lm",
        out: Out = None,
        settings: Settings = None,
        resume: Resume = False,
        dtype: options.Dtype = "auto",
        device: options.Device = None,
        trust_remote_code: options.Trust = False,
        as_json: options.Json = False,
    ) -> None:
        common.err().print(
            f"warning: laconic {verb} is deprecated and will be removed in laconic 0.3; use laconic fit.",
            style="yellow",
            soft_wrap=True,
        )
        _fit(name, model, out, settings or [], resume, dtype, device, trust_remote_code, as_json)

    old.__doc__ = "Deprecated name of `laconic fit`."
    return old


def _list(as_json: bool) -> None:
    from laconic.fit.contract import TrainingFit
    from laconic.fit.find import fits
    from laconic.fit.settings import defaults, shown

    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "kind": "trained" if issubclass(cls, TrainingFit) else "measured",
            "what": (cls.__doc__ or "").strip().splitlines()[0],
            "settings": defaults(cls),
        }
        for name, cls in fits().items()
    ]
    if as_json:
        common.emit(rows)
        return
    for row in rows:
        told = ", ".join(f"{key}={shown(value)}" for key, value in row["settings"].items())
        common.out().print(f"[bold cyan]{row['method']}[/] ({row['kind']}): {row['what']}", soft_wrap=True)
        common.out().print(f"  {told}", style="dim", markup=False, soft_wrap=True)
    console = common.out()
    console.print("\nlaconic fit NAME --settings says what they mean", style="dim")
    console.print("laconic fit NAME --model MODEL --out FILE --set name=value", style="dim", soft_wrap=True)


def _explain(name: str, as_json: bool) -> None:
    """The settings of one fit."""
    from rich.markup import escape
    from rich.table import Table

    from laconic.fit.find import find_fit
    from laconic.fit.meanings import meanings
    from laconic.fit.settings import defaults, shown

    cls = find_fit(name)
    rows = [(key, shown(value), meanings(cls)[key].replace("`", "")) for key, value in defaults(cls).items()]
    if as_json:
        common.emit([dict(zip(("setting", "default", "meaning"), row, strict=True)) for row in rows])
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("setting", style="cyan", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("what it means")
    for row in rows:
        table.add_row(*map(escape, row))
    console = common.out()
    if not console.is_terminal:
        console.width = 120
    console.print(table)


def _convert(old: Path, new: Path, as_json: bool) -> None:
    from laconic.fit.convert import convert

    artifact = convert(old.expanduser())
    artifact.save(new.expanduser())
    _tell(artifact, new, 0.0, [], as_json)


def _fit(
    name: str,
    model: str,
    out: Path | None,
    settings: list[str],
    resume: bool,
    dtype: str,
    device: str | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    from laconic.fit import Trainer
    from laconic.fit.find import find_fit
    from laconic.fit.settings import parse

    fit = parse(find_fit(name), options.pairs(settings))
    default = name if fit.standalone else f"{name}-{_plain(model)}"
    file, folder = _places(out or Path(f"{default}.safetensors"), fit)
    network, tokenizer = (None, None) if fit.standalone else options.load(model, dtype, device, trust_remote_code)
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if folder is not None:  # a training takes a while: its lines are shown as they come
            (common.err() if as_json else common.out()).print(line, markup=False, soft_wrap=True)

    began = time.perf_counter()
    try:
        with common.spinner(f"fitting {name} on {model}") if folder is None else nullcontext():
            artifact = Trainer(fit, network, tokenizer, folder, log).run(resume)
    except KeyboardInterrupt:
        if folder is not None:
            common.err().print(f"the last checkpoint is in {folder}; --resume continues from there", soft_wrap=True)
        raise
    artifact.save(file)
    if folder is None and not as_json:
        for line in lines:
            common.out().print(line, markup=False, soft_wrap=True)
    _tell(artifact, file, time.perf_counter() - began, lines, as_json)


def _places(out: Path, fit: Fit) -> tuple[Path, Path | None]:
    """The artifact's file, and the folder of a training's checkpoint and log."""
    from laconic.artifact import FILE, SUFFIX
    from laconic.fit import TrainingFit

    out = out.expanduser()
    parent = out.parent if out.suffix == SUFFIX else out
    if out.suffix == SUFFIX and not parent.is_dir():
        raise common.InputError(f"--out {out}: the folder does not exist.")
    if out.suffix != SUFFIX:
        if out.is_file():
            raise common.InputError(f"--out {out}: give a file that ends in {SUFFIX}, or a folder.")
        out.mkdir(parents=True, exist_ok=True)
    if not isinstance(fit, TrainingFit):
        return (out if out.suffix == SUFFIX else out / FILE), None
    return (out, out.with_suffix(".training")) if out.suffix == SUFFIX else (out / FILE, out)


def _plain(model: str) -> str:
    """A model's name in the name of a file."""
    folder = Path(model).expanduser()
    return (folder.resolve().name if folder.is_dir() else model).replace("/", "-")


def _tell(artifact: Artifact, file: Path, seconds: float, notes: list[str], as_json: bool) -> None:
    if as_json:
        facts = {"method": artifact.method, "kind": artifact.kind, "model": artifact.model, "file": str(file)}
        made = {"data": artifact.data, "settings": artifact.settings}
        common.emit({**facts, "seconds": round(seconds, 1), "notes": notes, **made})
        return
    took = f" in {seconds:.1f} s" if seconds else ""
    common.out().print(
        f"wrote {file}{took}; use it as --method {artifact.method}:artifact={file}", markup=False, soft_wrap=True
    )
