"""results/fused.json -> results/fused.md: attention over quantised and ragged entries beside dense ones.

python -m tools.pages.fused
"""

from __future__ import annotations

import sys

from tools.pages.parts import results, table, write_page


def page() -> str | None:
    """The whole page; None where nothing has been measured."""
    data = results("fused")
    if data is None:
        return None
    measured, wanted = [], []
    for row in data["rows"]:
        if "section" in row:
            mine, whole = row["least_ms"].values()
            measured.append([row["what"], row["head"], row["group"], row["tokens"], mine, whole, row["speedup"]["ratio"]])
        elif row.get("kind") == "target":
            limit = f"{'<=' if row['at_most'] else '>='} {row['limit']}"
            wanted.append([row["text"], row["value"], limit, "" if row["reached"] else "missed"])
    head = ["stored as", "head", "queries per KV head", "entries per head", "ms", "dense fp32, ms", "dense / this (median)"]
    parts = ["# Attention of one decoded token over quantised and ragged entries (8 layers, 2 KV heads, two threads)"]
    parts += [table(head, measured), table(["target", "measured", "wanted", ""], wanted)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(write_page("fused", page(), "fused.py"))
