"""`laconic inspect`: the same run, and an HTML page that shows what every layer and head kept of text, images or sound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laconic.budget import share
from laconic.cli import common
from laconic.cli.options import Json, Options, with_options

PAGE = "inspect.html"


@with_options
def inspect(
    options: Options,
    keep: Annotated[
        str | None,
        typer.Option("--keep", help="Share of the tokens kept: 0.1 or 10%; several, such as 0.5,0.25, make a slider."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help=f"HTML file; {PAGE}, or none with --json.")] = None,
    png: Annotated[str | None, typer.Option("--png", help="With --image: the images of the page as one PNG file.")] = None,
    lens: Annotated[
        str | None,
        typer.Option(
            "--lens",
            help="A lens, NAME:key=value; with --image one that reads words in the patches, LENS:FILE classes, too.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which tokens, image patches or stretches of sound a method kept, per layer, as an HTML page or JSON.

    Example: laconic inspect --method NAME --keep 0.1 --context notes.txt --question "What is the code for falcon?"

    Example: laconic inspect --lens NAME:key=value --context prose.txt

    Example: laconic inspect --model LLAVA --image street.jpg --method NAME --keep 0.5,0.25 -q "What does the sign say?"

    Example: laconic inspect --model QWEN2-AUDIO --audio talk.wav --method NAME --keep 0.5,0.25 -q "What is said?"

    Example: laconic inspect --model whisper-tiny-en --audio talk.wav --method NAME --keep 0.5,0.25
    """
    shares = _shares(keep)
    options.set_keep(shares[0] if shares else None)
    if options.hears and (png is not None or lens is not None):
        raise common.InputError(f"{'--png' if png is not None else '--lens'} is not about sound; drop it.")
    if options.sees or options.hears:
        page = None if out is None and (as_json or png is not None) else _target(out or PAGE)
        if options.hears:
            from laconic.cli import transcript

            if transcript.is_for(options):
                from laconic.cli.inspect_speech import inspect_speech

                inspect_speech(options, shares, page, as_json)
                return
        from laconic.cli.inspect_image import inspect_image

        sheet = None if png is None else _target(png, "--png")
        inspect_image(options, shares, lens, page, sheet, as_json)
        return
    if png is not None:
        raise common.InputError("--png is about images; give --image.")
    if lens is not None:
        from laconic.cli.inspect_lens import inspect_lens

        inspect_lens(options, lens, None if out is None else _target(out), as_json)
        return
    page = None if out is None and as_json else _target(out or PAGE)
    context = options.text()
    from laconic.cli.inspect_text import inspect_text

    inspect_text(options, context, shares or [], page, as_json)


def _shares(text: str | None) -> list[float] | None:
    """Shares as given: one, or several with commas."""
    if text is None:
        return None
    try:
        return [share(part) for part in text.split(",")]
    except ValueError:
        raise common.InputError(f"--keep {text} is no share; write 0.1 or 10%, several with commas.") from None


def _target(out: str, option: str = "--out") -> Path:
    """Refuse a file that cannot be written before a model is loaded."""
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise common.InputError(f"{option} {out}: give a file in a folder that exists.")
    return path
