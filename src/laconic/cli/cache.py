"""`laconic cache`: look at saved contexts, which `laconic run --cache FILE` writes and asks questions about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from laconic.cli import common
from laconic.cli.options import Json
from laconic.measure.units import size

app = typer.Typer(help="Look at saved contexts.", no_args_is_help=True)


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="A file that `laconic run --cache` wrote.")], as_json: Json = False
) -> None:
    """Say what a saved context holds: model, methods, tokens, bytes. Reads the header only."""
    from laconic.cache.described import arguments
    from laconic.cache.saved import header

    facts = header(file)
    facts.pop("sha256")
    if as_json:
        common.emit(facts)
        return
    given = [(m["name"], {k: v for k, v in arguments(m).items() if v is not None}) for m in facts["methods"]]
    methods = [f"{name}({', '.join(f'{k}={v}' for k, v in own.items())})" for name, own in given]
    rows = {
        "model": f"{facts['model']} ({facts['dtype']}, weights {facts['fingerprint']})",
        "tokenizer": facts["tokenizer"] or "not recorded",
        "methods": "; ".join(methods) or "none: everything is stored",
        "tokens": f"{facts['tokens']:,} seen in {len(facts['real'])} sequence(s)",
        "KV bytes": f"{size(facts['kv_bytes'])} of {size(sum(facts['real']) * facts['entry_bytes'])}",
        "parts": "; ".join(sorted({" + ".join(layer.get("parts", ["sliding window"])) for layer in facts["layers"]})),
        "file": size(Path(file).stat().st_size),
        "written by": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(value))
    common.out().print(table)
