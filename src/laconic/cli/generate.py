"""`laconic generate`: an image from a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from laconic.cli import common
from laconic.cli.options import Json


def generate(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to draw.")],
    method: Annotated[
        str, typer.Option("--method", help="NAME or NAME:key=value,...; `laconic methods --site codecs` lists generators.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Image file.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the noise.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw what a text says.

    Example: laconic generate --prompt "red circle top left" --method NAME:artifact=FILE -o circle.png
    """
    target = Path(out).expanduser()
    if target.is_dir() or not target.parent.is_dir():
        raise common.InputError(f"--out {out}: give a file in a folder that exists.")
    from laconic.codec.generator import GeneratorMethod
    from laconic.method import create_method

    made = create_method(method)
    if not isinstance(made, GeneratorMethod):
        raise common.InputError(
            f"--method {method} draws nothing from a text; `laconic methods --site codecs` lists what does."
        )
    image = made.generate(prompt, seed)
    try:
        image.save(target)
    except (ValueError, OSError) as error:
        raise common.InputError(f"--out {out}: {error}; give a file such as image.png.") from None
    if as_json:
        common.emit({"file": str(target), "method": made.name, "prompt": prompt, "seed": seed, "size": image.size})
        return
    common.out().print(f"wrote {target}", markup=False, soft_wrap=True)
