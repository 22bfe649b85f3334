"""`laconic inspect --lens NAME` without an image: what a lens finds in codes, in a text or in a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from laconic.cli import common
from laconic.cli.options import Options, model_for
from laconic.lens import LensMethod
from laconic.method import create_method, find


def inspect_lens(options: Options, spec: str, out: Path | None, as_json: bool) -> None:
    """Look and print what was found, one line each; with `out` also as JSON into a file.

    Raises:
        InputError: a lens that reads visual tokens, and there is no image.
    """
    name = spec.partition(":")[0].strip()
    if not issubclass(find(name).cls, LensMethod):
        raise common.InputError(f"--lens {name} is about images; give --image.")
    lens: Any = create_method(spec)
    text = None if options.context is None else common.read_text(options.context)
    model, tokenizer = None, None
    if lens.needs_model:
        from laconic.loading import load, tokenizer_of

        common.quiet()
        chosen = model_for(options.model, False)
        with common.spinner(f"loading {chosen}"):
            model, reader = load(chosen)
        tokenizer = tokenizer_of(reader)
    with common.spinner("looking"):
        found = lens.look(model, tokenizer, text)
    if out is not None:
        import json

        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if as_json:
        common.emit(found)
        return
    for path, value in lines(found):
        common.out().print(common.clean(f"{path}  {value}"), markup=False, soft_wrap=True)


def lines(found: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value of nested dictionaries with the names that lead to it."""
    if isinstance(found, dict):
        for name, value in found.items():
            yield from lines(value, f"{path} {name}".strip())
    else:
        yield path, f"{found:.4g}" if isinstance(found, float) else str(found)
