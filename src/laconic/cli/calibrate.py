"""`laconic calibrate`: what a method learns about one model offline, written as a recipe file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from laconic.cli import common, options


def calibrate(
    name: Annotated[str, typer.Argument(help="Method: compresskv, fastkv, razorattention, fitprune or vtw.")],
    model: options.Model = "testbed/lm",
    out: Annotated[Path | None, typer.Option(help="File to write; default: NAME-MODEL.json here.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens of the needle prompts, such as 512,1024.")] = None,
    depths: Annotated[int | None, typer.Option(help="How many depths of the needle, from 0 to 100 %.")] = None,
    needles: Annotated[int | None, typer.Option(help="Needle prompts per length and depth.")] = None,
    tokens: Annotated[int | None, typer.Option(help="razorattention: tokens before they repeat.")] = None,
    repeats: Annotated[int | None, typer.Option(help="razorattention: how often they stand there.")] = None,
    material: Annotated[str | None, typer.Option(help="razorattention: random (tokens) or sentences.")] = None,
    reductions: Annotated[str | None, typer.Option(help="fitprune: FLOPs to save, in percent, such as 50,60,80.")] = None,
    samples: Annotated[int | None, typer.Option(help="fitprune, vtw: images with questions.")] = None,
    file: Annotated[str | None, typer.Option(help="fitprune, vtw: JSON lines with image and question, not scenes.")] = None,
    eta_per_million: Annotated[int | None, typer.Option(help="vtw: largest divergence, times a million (3000).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is drawn, 0 to 999,999; later ones are for evaluation.")] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    trust_remote_code: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Learn what a method needs to know about a model; pass the file as recipe=FILE.

    Prompts are planted in documentation that no evaluation uses, questions are about scenes that none uses. On the testbed
    it takes seconds.
    """
    from laconic.fit.calibrations import calibrate as run
    from laconic.fit.calibrations import find_calibration

    find_calibration(name)
    given: dict[str, Any] = {
        "depths": depths,
        "needles": needles,
        "tokens": tokens,
        "repeats": repeats,
        "material": material,
        "samples": samples,
        "file": file,
        "eta_per_million": eta_per_million,
        "seed": seed,
        "lengths": None if lengths is None else _numbers("lengths", lengths),
        "reductions": None if reductions is None else _numbers("reductions", reductions),
    }
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


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(piece) for piece in text.split(",") if piece.strip())
    except ValueError:
        raise common.InputError(f"--{option} {text}: give whole numbers with commas between them.") from None


def _load(model: str, dtype: str, device: str | None, trust_remote_code: bool) -> tuple[Any, Any]:
    import torch

    import laconic

    if dtype not in options.DTYPES:
        raise common.InputError(f"--dtype {dtype}: choose one of {', '.join(options.DTYPES)}.")
    common.quiet()
    kind = dtype if dtype == "auto" else getattr(torch, dtype)
    with common.spinner(f"loading {model}"):
        return laconic.load(model, dtype=kind, device=device, trust_remote_code=trust_remote_code)
