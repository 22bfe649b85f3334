"""`laconic methods`: the catalogue, or one method in detail."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from laconic.cli import common
from laconic.method import Entry, list_methods, outline, terms
from laconic.shelf import Line, Sheet, sheet

L = TypeVar("L", Entry, Line, Entry | Line)
ITEM = re.compile(r" *([-*]|\d+\.) +")
SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Example):")
READABLE = 100
"""Columns of running text, where the terminal has them."""
WIDE = 150
"""From this many columns on (and in a pipe) every method is one row; narrower terminals get a list by site."""


def methods(
    pattern: Annotated[str, typer.Argument(help="Shell pattern of method names, such as 'random*'.")] = "*",
    modality: Annotated[str | None, typer.Option(help="Only methods for text, image or video.")] = None,
    mechanism: Annotated[
        str | None, typer.Option(help="Only those with this word in their mechanism or principle, such as similarity.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Only those that act there: encoder, tokens, cache ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Only JSON on stdout.")] = False,
) -> None:
    """List the compression methods; with one match, its parameters and what was inferred."""
    wanted = {"modality": modality, "mechanism": mechanism, "site": site}
    listed = _filtered(outline(pattern), wanted)
    if len(listed) > 1 and not as_json:
        _table(listed)
        return
    if as_json:
        with common.spinner("importing the methods"):
            common.emit([entry.as_dict() for entry in _filtered(list_methods(pattern), wanted)])
    else:
        _details(listed[0])


def _filtered(found: Sequence[L], wanted: dict[str, str | None]) -> list[L]:
    """The entries that have all that is wanted.

    Raises:
        InputError: none has; what the entries have instead is named.
    """
    left = list(found)
    for name, value in wanted.items():
        if value is None:
            continue
        had = {term for entry in left for term in _terms(entry, name)}
        left = [entry for entry in left if value.lower() in _terms(entry, name)]
        if not left:
            raise common.InputError(f"--{name} {value}: no such method; there are: {', '.join(sorted(had))}.")
    return left


def _terms(entry: Entry | Line, name: str) -> set[str]:
    """What an entry answers to: single words of its mechanism, too."""
    if name != "mechanism":
        return terms(getattr(entry, name))
    whole = terms(entry.mechanism) | terms(entry.principle)
    return whole | {word for term in whole for word in term.split()}


def _table(found: Sequence[Entry | Line]) -> None:
    console = common.out()
    width = console.width = console.width if console.is_terminal else WIDE
    table = Table(box=None, header_style="bold", pad_edge=False, show_header=width >= WIDE)
    if width >= WIDE:
        for title in ("method", "site", "mechanism", "training", "question", "source", "what it does"):
            table.add_column(title, no_wrap=title in ("method", "site", "training", "question"))
        for e in found:
            facts = escape(e.mechanism), e.training, _question(e), escape(e.source), escape(_flat(e))
            table.add_row(f"[cyan]{e.name}[/]", e.site, *facts)
    else:
        table.add_column(no_wrap=True)
        table.add_column()
        for site, entries in groupby(found, key=lambda e: e.site):
            table.add_row(f"[bold]{site}[/]", "")
            for e in entries:
                training = "" if e.training == "none" else f"{e.training}, "
                more = f"{e.mechanism}; {training}question: {_question(e)}; {e.source}"
                table.add_row(f"  [cyan]{e.name}[/]", f"{escape(_flat(e))}\n[dim]{escape(more)}[/]")
    console.print(table)
    console.print(f"\n{len(found)} methods. `laconic methods NAME` shows one in detail.", style="dim")


def _question(entry: Entry | Line) -> str:
    return "looks at it" if entry.query_aware else "any"


def _flat(entry: Entry | Line) -> str:
    return entry.summary.replace("``", "")


def _sheet(entry: Entry | Line) -> Sheet:
    if isinstance(entry, Line):
        return sheet(entry.name)
    cls = entry.cls
    parameters = {name: repr(value) for name, value in entry.parameters().items()}
    constants = cls.default_keep, cls.fixed_budget, cls.reuse, cls.uneven, cls.packs
    return Sheet(cls.__name__, inspect.cleandoc(cls.__doc__ or ""), parameters, *constants)


def _details(entry: Entry | Line) -> None:
    console, told = common.out(), _sheet(entry)
    if not console.is_terminal:
        console.width = READABLE
    console.print(f"[bold cyan]{entry.name}[/]  laconic.{told.cls}\n")
    console.print(reflowed(told.doc.replace("``", ""), min(console.width, READABLE)), markup=False)
    facts: dict[str, Any] = {
        "site": entry.site,
        "modality": entry.modality,
        "mechanism": entry.mechanism,
        "principle": entry.principle or "none of the survey's",
        "training": entry.training,
        "question": "looks at it: chooses by the end of the prompt" if entry.query_aware else "any: does not look at it",
        "source": entry.source,
        "inferred": entry.inferred or "nothing; as published",
        "default keep": told.default_keep
        or ("fixed by the artifact" if told.fixed_budget else "as the method's own parameters say"),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    console.print()
    console.print(table)
    if told.parameters:
        console.print("\n[bold]parameters and defaults[/] (besides keep, tokens, bytes and protect)")
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, default in told.parameters.items():
            table.add_row(f"  [cyan]{name}[/]", escape(default))
        console.print(table)
    budget = f" --keep {told.default_keep}" if told.default_keep else ""
    example = f"--method {entry.name}{budget} --context FILE --question TEXT"
    console.print(f"\n[dim]laconic run {example}[/]")


def reflowed(doc: str, width: int) -> str:
    """A docstring with its paragraphs, list items and entries of sections wrapped anew to `width` columns."""
    out: list[str] = []
    block: list[str] = []  # the lines of one paragraph, item or entry
    section = False  # whether that is an entry of a section
    for line in [*doc.splitlines(), ""]:
        deeper = bool(block) and _indent(line) > _indent(block[0])
        goes_on = line.strip() and block and not ITEM.match(line) and (deeper or not (section or ITEM.match(block[0])))
        if not goes_on and block:
            hanging = 4 if section else len(match[0]) - _indent(block[0]) if (match := ITEM.match(block[0])) else 0
            start = " " * _indent(block[0])
            text = " ".join(part.strip() for part in block)
            out.append(textwrap.fill(text, width, initial_indent=start, subsequent_indent=start + " " * hanging))
            block = []
        if SECTION.fullmatch(line):
            out.append(line)
            section = True
        elif line.strip():
            section = section and line.startswith(" ")
            block.append(line)
        elif not goes_on:
            out.append("")
    return "\n".join(out).rstrip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
