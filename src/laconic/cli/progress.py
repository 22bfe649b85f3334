"""How far a command with many rows has come: a bar on a terminal, and now and then a line in a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


@contextmanager
def rows_shown(console: Console, total: int, terminal: bool) -> Iterator[Callable[[str], None]]:
    """Yields what is called, with a few words on it, for every row that is finished.

    Args:
        terminal: draw a bar; otherwise a line is printed every `EVERY` seconds.
    """
    if terminal:
        rows = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        times = TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*rows, *times, console=console, transient=True) as progress:
            bar = progress.add_task("warming up", total=total)
            yield lambda words: progress.update(bar, advance=1, description=words)
        return
    began = told = time.perf_counter()
    done = 0

    def finished(words: str) -> None:
        nonlocal done, told
        done += 1
        now = time.perf_counter()
        if now - told >= EVERY and done < total:
            told = now
            passed = now - began
            left = _spoken(passed / done * (total - done))
            console.print(f"{done} of {total} rows in {_spoken(passed)}, about {left} left; {words.strip()}")

    yield finished


def _spoken(seconds: float) -> str:
    """70 -> "1:10"; from an hour on with hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
