"""`laconic compress`: a text without what a method finds dispensable, for any model that reads text."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.budget import Budget
from laconic.cli import common
from laconic.cli.options import Json, share_of
from laconic.measure.units import seconds
from laconic.method import check_name, outline

if TYPE_CHECKING:
    from laconic.shortening.contract import PromptMethod
    from laconic.shortening.shorten import Shortened


def compress(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="UTF-8 text files, each a document; - or none is stdin.")
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option("--keep", parser=share_of, metavar="SHARE", help="Share of the tokens that stays: 0.3 or 30%."),
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Tokens that stay instead.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="NAME or NAME:key=value,...; `laconic methods` lists those of the prompt.")
    ] = None,
    question: Annotated[str, typer.Option("--question", "-q", help="What will be asked; some methods need it.")] = "",
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The model that will read the text: budget and figures in its tokens."),
    ] = None,
    protect: Annotated[list[str] | None, typer.Option("--protect", help="Text that stays. Repeatable.")] = None,
    force: Annotated[
        list[str] | None, typer.Option("--force", help="Stays wherever it occurs, such as '.' or '\\n'. Repeatable.")
    ] = None,
    digits: Annotated[bool, typer.Option("--digits", help="Whatever has a digit stays.")] = False,
    tags: Annotated[
        str | None,
        typer.Option("--tags", help="NAME of a tag: <NAME, compress=False>...</NAME> stays, rate=0.2 has its own."),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Of a learned memory: segments that were compressed before come from the store.")
    ] = False,
    out: Annotated[str | None, typer.Option("--out", "-o", help="File for the text; default: stdout.")] = None,
    as_json: Json = False,
) -> None:
    """Shorten a text before any model reads it, and say on stderr how far.

    Example: laconic compress report.txt --keep 0.3 -o short.txt

    A learned memory becomes a file of soft tokens, for `laconic run --memory`.

    Example: laconic compress a.txt b.txt --keep 0.5 --method NAME:artifact=FILE --model MODEL --store -o mem.safetensors

    Example: laconic compress a.txt b.txt c.txt --tokens 500 --method NAME -q "What was agreed?"
    """
    if keep is not None and tokens is not None:
        raise common.InputError("--keep and --tokens exclude each other; give one budget.")
    if keep is not None or tokens is not None:
        Budget(keep, tokens)
    if method is not None:
        check_name(method.partition(":")[0].strip())
    target = None if out is None else _target(out)
    texts = [common.read_text(file, "FILE") for file in _given(files)]
    if method is not None and outline(method.partition(":")[0].strip())[0].site == "memory":
        from laconic.cli.saved_memory import remember

        if tokens is not None or question or protect or force or digits or tags is not None:
            raise common.InputError(
                f"--method {method} makes soft tokens of a whole text; give --keep, --model, --store and --out alone."
            )
        remember(texts, method, keep, model, target, store, as_json)
        return
    if store:
        raise common.InputError("--store keeps the segments of learned memories; give a --method of the site memory.")
    common.quiet()
    with common.spinner("shortening"):
        chosen = _method(method, keep, tokens)
        own: dict[str, Any] = {"digits": digits or chosen.digits, "tags": chosen.tags if tags is None else tags}
        if force:
            own["force"] = [text.replace("\\n", "\n") for text in force]
        done = _shortened(texts, replace(chosen, **own), question, protect or (), model)
    if target is not None:
        target.write_text(done.text, encoding="utf-8")
    if as_json:
        common.emit(record(done, None if target else done.text))
        return
    if target is None:
        sys.stdout.write(done.text + ("" if done.text.endswith("\n") else "\n"))
    common.err().print(figures(done), style="dim", markup=False, soft_wrap=True)


def figures(done: Shortened) -> str:
    """What became of a text, in one line."""
    counted = f"{done.tokens_in:,} -> {done.tokens_out:,} {done.unit} ({done.achieved:.1%}, asked {done.asked:.1%})"
    if done.scorer_tokens is not None and done.scorer_tokens != (done.tokens_in, done.tokens_out):
        before, after = done.scorer_tokens
        counted += f", {before:,} -> {after:,} by the tokenizer of {done.scorer}"
    scored = f", scored by {done.scorer}" if done.scorer else ""
    return f"{done.method}: {counted}{scored}, {seconds(done.seconds)}"


def record(done: Shortened, text: str | None) -> dict[str, Any]:
    """The JSON of `compress`; the keys are stable. `text` is None where it went into a file."""
    return {
        "text": text,
        "method": done.method,
        "asked": done.asked,
        "achieved": done.achieved,
        "unit": done.unit,
        "tokens_in": done.tokens_in,
        "tokens_out": done.tokens_out,
        "scorer": done.scorer or None,
        "scorer_tokens": done.scorer_tokens,
        "flops": done.flops,
        "seconds": done.seconds,
        "pieces": len(done.pieces),
        "kept": list(done.kept),
    }


def _given(files: list[str] | None) -> list[str]:
    if files:
        return files
    if sys.stdin.isatty():
        raise common.InputError("there is no text; give a FILE, or pipe one in.")
    return ["-"]


def _target(out: str) -> Path:
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise common.InputError(f"--out {out}: give a file in a folder that exists.")
    return path


def _method(spec: str | None, keep: float | None, tokens: int | None) -> PromptMethod:
    """The method that is named, or the one that its class says is to be taken."""
    from laconic.method import create_method, list_methods
    from laconic.shortening.contract import PromptMethod

    if spec is None:
        known = [entry for entry in list_methods() if issubclass(entry.cls, PromptMethod)]
        spec = next(entry.name for entry in known if entry.cls.preferred)  # type: ignore[attr-defined]
    found = create_method(spec, keep=keep, tokens=tokens)
    if not isinstance(found, PromptMethod):
        raise common.InputError(
            f"--method {spec} does not shorten text; `laconic methods` lists those of the prompt; `laconic run` takes all."
        )
    return found


def _shortened(
    texts: list[str], method: PromptMethod, question: str, protect: list[str] | tuple[()], model: str | None
) -> Shortened:
    from laconic.loading import load_reader, tokenizer_of
    from laconic.shortening.shorten import shorten

    tokenizer = None if model is None else tokenizer_of(load_reader(model))
    text = texts[0] if len(texts) == 1 else texts
    return shorten(text, method, question=question, protect=protect, tokenizer=tokenizer)
