"""`laconic bake`: a model with fewer or smaller weights, as a folder that transformers loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from laconic.cli import common, options
from laconic.method import check_name

if TYPE_CHECKING:
    from laconic.baking import Baked


def bake(
    method: Annotated[str, typer.Option("--method", help="NAME or NAME:key=value,...; of the site weights.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write; it must not exist.")],
    model: options.Model = "testbed/lm",
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity", parser=options.share_of, metavar="SHARE", help="Share of the weights that goes: 0.5, 50%."
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option("--keep", parser=options.share_of, metavar="SHARE", help="Share of the weights that stays instead."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the measurement that the method needs, as name=value; repeat it."),
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    trust_remote_code: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Write a model with fewer or smaller weights as a folder that transformers loads without laconic.

    Example: laconic bake --model smollm2 --method NAME:bits=4 --out smollm2-4bit

    What the method has to measure first it measures on Python's documentation, or on your text: --set text=FILE.
    """
    check_name(method.partition(":")[0].strip())
    share = _share(sparsity, keep)
    given = options.pairs(settings or [])
    from laconic.baking import bake as write
    from laconic.method import create_method

    chosen = create_method(method, keep=share)
    if out.expanduser().exists():
        raise common.InputError(f"--out {out} exists already; choose another folder, or remove it first.")
    network, tokenizer = options.load(model, dtype, device, trust_remote_code)
    with common.spinner(f"baking {chosen.name} into {model}"):
        baked = write(network, tokenizer, chosen, out, given)
    if as_json:
        common.emit(dataclasses.asdict(baked) | {"saves": chosen.saves})  # type: ignore[attr-defined]
        return
    common.out().print(_told(baked, chosen.saves), markup=False, soft_wrap=True)  # type: ignore[attr-defined]


def _share(sparsity: float | None, keep: float | None) -> float | None:
    """The share that stays."""
    if sparsity is not None and keep is not None:
        raise common.InputError("--sparsity and --keep say the same; give one of them.")
    if sparsity is None:
        return keep
    if not 0 <= sparsity < 1:
        raise common.InputError(f"--sparsity {sparsity:g} is out of range: it is the share that goes, 0 <= sparsity < 1.")
    return 1 - sparsity


def _told(baked: Baked, saves: str) -> str:
    facts = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in baked.facts.items()
    )
    size = f"{baked.bytes_before:,} -> {baked.bytes:,} bytes, {baked.parameters_before:,} -> {baked.parameters:,} parameters"
    return f"wrote {baked.folder}: {size}\n{facts}\nsaves {saves}"
