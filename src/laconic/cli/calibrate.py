"""`laconic calibrate`: what a method learns about one model offline, written as a recipe file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from laconic.cli import common, options


def calibrate(
    name: Annotated[str, typer.Argument(help="Method: compresskv, fastkv or razorattention.")],
    model: options.Model = "testbed/lm",
    out: Annotated[Path | None, typer.Option(help="File to write; default: NAME-MODEL.json here.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens of the needle prompts, such as 512,1024.")] = None,
    depths: Annotated[int | None, typer.Option(help="How many depths of the needle, from 0 to 100 %.")] = None,
    needles: Annotated[int | None, typer.Option(help="Needle prompts per length and depth.")] = None,
    tokens: Annotated[int | None, typer.Option(help="razorattention: tokens before they repeat.")] = None,
    repeats: Annotated[int | None, typer.Option(help="razorattention: how often they stand there.")] = None,
    material: Annotated[str | None, typer.Option(help="razorattention: random (tokens) or sentences.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is drawn, 0 to 999,999; later ones are for evaluation.")] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    trust_remote_code: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Learn what a method needs to know about a model; pass the file as recipe=FILE.

    Prompts are planted in documentation that no evaluation uses. On testbed/lm it takes seconds.
    """
    from laconic.calibrate.base import calibrate as run
    from laconic.calibrate.base import find_calibration

    find_calibration(name)
    given: dict[str, Any] = {
        "depths": depths,
        "needles": needles,
        "tokens": tokens,
        "repeats": repeats,
        "material": material,
    }
    given["seed"], given["lengths"] = seed, None if lengths is None else _numbers(lengths)
    folder = Path(model).expanduser()
    target = out or Path(f"{name}-{(folder.resolve().name if folder.is_dir() else model).replace('/', '-')}.json")
    if not target.parent.is_dir():
        raise common.InputError(f"--out {target}: the folder does not exist.")
    network, tokenizer = _load(model, dtype, device, trust_remote_code)
    began = time.perf_counter()
    with common.spinner(f"calibrating {name} on {model}"):
        lines: list[str] = []
        recipe = run(name, network, tokenizer, lines.append, **{k: v for k, v in given.items() if v is not None})
    seconds = time.perf_counter() - began
    recipe.save(target)
    if as_json:
        common.emit({"file": str(target), "seconds": round(seconds, 1), "notes": lines, "recipe": recipe.data})
        return
    for line in lines:
        common.out().print(line, markup=False)
    common.out().print(f"wrote {target} in {seconds:.1f} s; use it as --method {name}:recipe={target}", markup=False)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(piece) for piece in text.split(",") if piece.strip())
    except ValueError:
        raise common.InputError(f"--lengths {text}: give whole numbers, such as 512,1024.") from None


def _load(model: str, dtype: str, device: str | None, trust_remote_code: bool) -> tuple[Any, Any]:
    import torch

    import laconic

    if dtype not in options.DTYPES:
        raise common.InputError(f"--dtype {dtype}: choose one of {', '.join(options.DTYPES)}.")
    common.quiet()
    kind = dtype if dtype == "auto" else getattr(torch, dtype)
    with common.spinner(f"loading {model}"):
        return laconic.load(model, dtype=kind, device=device, trust_remote_code=trust_remote_code)
