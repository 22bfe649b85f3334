"""`laconic methods`: the catalogue, or one method in detail."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from laconic.cli import common

if TYPE_CHECKING:
    from laconic.method import Entry

WIDE = 150
"""From this many columns on (and in a pipe) every method is one row; narrower terminals get two lines each."""


def methods(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of method names, such as 'random*'.")] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")] = False,
) -> None:
    """List the compression methods; with one match, its parameters and what was inferred."""
    from laconic import list_methods as catalogue

    found = catalogue(pattern)
    if as_json:
        common.emit([entry.as_dict() for entry in found])
        return
    if len(found) == 1:
        _details(found[0])
    else:
        _table(found)


def _table(found: list[Entry]) -> None:
    console = common.out()
    width = console.width = console.width if console.is_terminal else WIDE
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=width >= WIDE)
    if width >= WIDE:
        for title in ("method", "site", "mechanism", "training", "query", "source", "what it does"):
            table.add_column(title, no_wrap=title in ("method", "site", "training", "query"))
        for e in found:
            facts = escape(e.mechanism), e.training, _query(e), escape(e.source), escape(_flat(e))
            table.add_row(f"[cyan]{e.name}[/]", e.site, *facts)
    else:
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for e in found:
            more = f"{e.mechanism}; training: {e.training}; query-{_query(e)}; {e.source}"
            table.add_row(f"[cyan]{e.name}[/]", e.site, f"{escape(_flat(e))}\n[dim]{escape(more)}[/]")
    console.print(table)
    console.print(f"\n{len(found)} methods. `laconic methods NAME` shows one in detail.", style="dim")


def _query(entry: Entry) -> str:
    return "aware" if entry.query_aware else "agnostic"


def _flat(entry: Entry) -> str:
    return entry.summary.replace("``", "")


def _details(entry: Entry) -> None:
    console = common.out()
    console.print(f"[bold cyan]{entry.name}[/]  laconic.{entry.cls.__name__}")
    console.print(Padding(escape(inspect.cleandoc(entry.cls.__doc__ or "").replace("``", "")), (1, 0)))
    facts: dict[str, Any] = {
        "site": entry.site,
        "modality": entry.modality,
        "mechanism": entry.mechanism,
        "training": entry.training,
        "query": "aware: chooses by the queries at the end of the prompt" if entry.query_aware else "agnostic",
        "source": entry.source,
        "inferred": entry.inferred or "nothing; as published",
        "default keep": entry.cls.default_keep
        or ("fixed by the artifact" if entry.cls.fixed_budget else "as the method's own parameters say"),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    console.print(table)
    parameters = entry.parameters()
    if parameters:
        console.print("\n[bold]parameters and defaults[/] (besides keep, tokens, bytes and protect)")
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in parameters.items():
            table.add_row(f"  [cyan]{name}[/]", escape(repr(value)))
        console.print(table)
    budget = f" --keep {entry.cls.default_keep}" if entry.cls.default_keep else ""
    example = f"--method {entry.name}{budget} --context FILE --question TEXT"
    console.print(f"\n[dim]laconic run {example}[/]")
