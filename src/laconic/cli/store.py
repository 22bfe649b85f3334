"""`laconic store`: look at the store of memories, and keep it in order."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from laconic.cli import common
from laconic.cli.options import Json, bytes_of
from laconic.measure.units import age, size

if TYPE_CHECKING:
    from laconic.memory.store import Entry, SegmentStore

SHOWN = 12
"""Characters of a key in a table."""

app = typer.Typer(help="Look at stored memories, and keep them in order.", no_args_is_help=True)
Folder = Annotated[str | None, typer.Option("--folder", help="Of the store; default: in laconic's cache folder.")]
Namespace = Annotated[str, typer.Option("--namespace", help="Which part of the store.")]
Keys = Annotated[list[str], typer.Argument(help="Keys as `ls` shows them, or beginnings of keys that fit one entry.")]


@app.command()
def ls(folder: Folder = None, namespace: Namespace = "default", as_json: Json = False) -> None:
    """List what is stored, latest use first."""
    opened = _open(folder, namespace)
    entries = sorted(opened.entries(), key=lambda e: -e.used)
    if as_json:
        common.emit([asdict(entry) for entry in entries])
        return
    now = time.time()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("key", "size", "used", "ends", "facts"):
        table.add_column(title, no_wrap=title != "facts", justify="right" if title == "size" else "left")
    for e in entries:
        ends = "pinned" if e.pinned else "-" if e.expires is None else "over" if e.expired(now) else age(e.expires - now)
        facts = ", ".join(f"{name}={value}" for name, value in sorted(e.facts.items()))
        table.add_row(
            f"[cyan]{e.key[:SHOWN]}[/]", size(e.bytes), f"{age(now - e.used)} ago", ends, escape(common.clean(facts))
        )
    if entries:
        common.out().print(table)
    total = size(sum(e.bytes for e in entries))
    common.out().print(f"{len(entries)} stored, {total}, in {opened.folder}", style="dim", markup=False, soft_wrap=True)


@app.command()
def gc(
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            parser=bytes_of,
            metavar="BYTES",
            help="What may stay, such as 2GB; the least recently used go first.",
        ),
    ] = None,
    folder: Folder = None,
    namespace: Namespace = "default",
    as_json: Json = False,
) -> None:
    """Remove what is past its time, what is over --limit, and what killed writers left behind."""
    swept = _open(folder, namespace, limit).gc()
    if as_json:
        common.emit(asdict(swept))
        return
    common.out().print(
        f"{len(swept.expired)} past their time, {len(swept.evicted)} over the limit, {swept.leftovers} unfinished files: "
        f"{size(swept.bytes)} freed"
    )


@app.command()
def verify(
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged; it is made again when needed.")] = False,
    folder: Folder = None,
    namespace: Namespace = "default",
    as_json: Json = False,
) -> None:
    """Read every byte and name what is damaged. Exit status 1 where something is, and stays."""
    opened = _open(folder, namespace)
    with common.spinner(f"reading {opened.folder}"):
        damages = opened.verify()
    for damage in damages:
        if remove:
            opened.remove(damage.key)
    if as_json:
        common.emit([asdict(damage) for damage in damages])
    else:
        for damage in damages:
            common.out().print(damage.reason, markup=False, soft_wrap=True)
        common.out().print(f"{len(damages)} damaged, {len(opened.entries())} as they were written")
    if damages and not remove:
        raise typer.Exit(common.FAILED)


@app.command()
def rm(keys: Keys, folder: Folder = None, namespace: Namespace = "default", as_json: Json = False) -> None:
    """Remove entries, damaged ones too."""
    opened = _open(folder, namespace)
    found = [_key(opened, key) for key in keys]
    removed = [key for key in found if opened.remove(key)]
    _report(removed, "removed", as_json)


@app.command()
def pin(
    keys: Keys,
    undo: Annotated[bool, typer.Option("--undo", help="Let them go again.")] = False,
    folder: Folder = None,
    namespace: Namespace = "default",
    as_json: Json = False,
) -> None:
    """Keep entries whatever their age and the limit."""
    opened = _open(folder, namespace)
    found = [_key(opened, key) for key in keys]
    _report([opened.pin(key, not undo).key for key in found], "unpinned" if undo else "pinned", as_json)


def _open(folder: str | None, namespace: str, limit: int | None = None) -> SegmentStore:
    from laconic.memory.store import SegmentStore

    return SegmentStore(folder, namespace=namespace, limit=limit)


def _table(entries: list[Entry], now: float) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("key", "size", "used", "ends", "facts"):
        table.add_column(title, no_wrap=title != "facts", justify="right" if title == "size" else "left")
    for e in entries:
        ends = "pinned" if e.pinned else "-" if e.expires is None else "over" if e.expired(now) else age(e.expires - now)
        facts = common.clean(", ".join(f"{name}={value}" for name, value in sorted(e.facts.items())))
        table.add_row(f"[cyan]{e.key[:SHOWN]}[/]", size(e.bytes), f"{age(now - e.used)} ago", ends, escape(facts))
    return table


def _key(store: SegmentStore, text: str) -> str:
    """The one key that begins with `text`.

    Raises:
        InputError: none does, or several do.
    """
    found = [key for key in store.all_keys() if key.startswith(text)]
    if len(found) != 1:
        what = f"{len(found)} keys begin with" if found else "no key begins with"
        raise common.InputError(f"{what} {text!r} in {store.folder}; `laconic store ls` lists them.")
    return found[0]


def _report(keys: list[str], what: str, as_json: bool) -> None:
    if as_json:
        common.emit({what: keys})
    else:
        for key in keys:
            common.out().print(f"{what} {key}", markup=False)
