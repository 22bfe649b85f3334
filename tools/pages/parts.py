"""What the pages share: where things are, the results of the benchmarks, and tables in Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
Row = dict[str, Any]


def results(name: str) -> Row | None:
    """benchmarks/results/`name`.json, or None where nothing has been measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_page(name: str, text: str | None, script: str) -> int:
    """Write benchmarks/results/`name`.md; without text, name the `script` that measures what is missing. The exit status."""
    if text is None:
        print(f"no results yet; run benchmarks/{script}", file=sys.stderr)
        return 1
    path = RESULTS / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}", file=sys.stderr)
    return 0


def write_or_check(path: Path, text: str, module: str) -> int:
    """Write a generated page of the documentation, or with --check only say whether it is current. The exit status.

    Args:
        module: of `tools.pages`, that makes the page.
    """
    name = path.relative_to(ROOT)
    if "--check" in sys.argv[1:]:
        current = path.exists() and path.read_text(encoding="utf-8") == text
        print(f"{name} is current." if current else f"{name} is stale: run python -m tools.pages.{module}")
        return 0 if current else 1
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")
    return 0


def write_results(path: Path, name: str, page: Callable[[Any], str]) -> int:
    """Write the generated page of benchmarks/results/`name`.json, or check it; see `write_or_check`. The exit status.

    Args:
        page: the results as Markdown. The module is called leaderboard_`name`, the script benchmarks/`name`.py.
    """
    rows = results(name)
    if rows is None:
        print(f"no results yet; run benchmarks/{name}.py", file=sys.stderr)
        return 1
    return write_or_check(path, page(rows), f"leaderboard_{name}")


def not_measured(rows: Sequence[Row], name: str) -> list[str]:
    """Lines that say why some rows were refused, each after what the column `name` calls it; none where none was."""
    refused = [f"* `{row[name]}`: {row['refused']}" for row in rows if "refused" in row]
    return ["Not measured:\n", *refused, ""] if refused else []


def percent(row: Row, *names: str) -> list[str]:
    """Shares of a row in percent, with one decimal."""
    return [f"{100 * row[name]:.1f}" for name in names]


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """One table, all columns aligned to the left."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def spread(ratio: Row) -> str:
    """The median of paired ratios with their quartiles: ``1.50 (1.45 to 1.56)``."""
    return f"{ratio['ratio']:.2f} ({ratio['quartiles'][0]:.2f} to {ratio['quartiles'][1]:.2f})"


def machine(found: Row) -> str:
    """Processor, threads and versions of one result file."""
    return f"{found['cpu']}, {found['threads']} threads; torch {found['torch']}, transformers {found['transformers']}"
