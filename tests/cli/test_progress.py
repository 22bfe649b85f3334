"""Progress of many rows without a terminal."""

import io

import pytest
from rich.console import Console

from laconic.cli import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def test_a_line_every_half_minute_where_there_is_no_terminal(clock):
    console = Console(file=io.StringIO(), width=200)
    with progress.rows_shown(console, 400, terminal=False) as finished:
        for row in range(1, 401):
            clock[0] += 10
            finished(f"needle in view  row {row}   ")
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 133  # and none for the last row, which the command tells itself
    assert lines[0] == "3 of 400 rows in 0:30, about 1:06:10 left; needle in view  row 3"
    assert lines[-1] == "399 of 400 rows in 1:06:30, about 0:10 left; needle in view  row 399"


def test_what_ends_soon_says_nothing(clock):
    console = Console(file=io.StringIO())
    with progress.rows_shown(console, 3, terminal=False) as finished:
        for _ in range(3):
            clock[0] += 9
            finished("needle")
    assert console.file.getvalue() == ""


def test_a_terminal_has_a_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with progress.rows_shown(console, 2, terminal=True) as finished:
        finished("needle")
        finished("needle")
    assert "2/2" in console.file.getvalue() and "needle" in console.file.getvalue()
