"""What a bench leaves in its folder beside results.jsonl: table.md and report.html."""

from __future__ import annotations

import os
from pathlib import Path

from laconic.bench.report import report
from laconic.bench.store import Row, StoreError
from laconic.bench.summary import Line, summarise
from laconic.bench.table import TABLE_FILE, markdown

RESULTS, TABLE, REPORT = "results.jsonl", TABLE_FILE, "report.html"


def write_outputs(rows: list[Row], folder: Path, seed: int = 0) -> list[Line]:
    """Summarise `rows` and write the table and the report, each whole or not at all.

    Raises:
        StoreError: there are no rows, or the disk refuses a file; results.jsonl is not touched.
    """
    if not rows:
        raise StoreError(f"{folder / RESULTS} holds no finished row yet; there is nothing to tabulate.")
    lines = summarise(rows, seed)
    _replace(folder / TABLE, markdown(lines))
    _replace(folder / REPORT, report(lines, rows))
    return lines


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{path} could not be written: {error.strerror}. results.jsonl is untouched.") from error
