"""results/decode_attention.json -> results/decode_attention.md: attention over the cache beside reading its bytes.

python -m tools.pages.decode_attention
"""

from __future__ import annotations

import sys

from tools.pages.parts import Row, machine, results, table, write_page

LIMIT = 2.0  # times the reading of the bytes; what is wanted
HEAD = ["threads", "tokens", "keep", "stored as", "read, µs", "laconic, µs", "times the reading", "less 8 entries, times"]
HEAD += ["torch's kernel, µs", "medians: read, laconic"]
HOW = f"""A layer of SmolLM2-135M: 3 KV heads with 3 queries each, head size 64. *read* is the time of reading as many bytes
once, in turns with the rest of the row: no exact method is faster. Least of many single calls, as noise only adds (with one
thread, of the thread's own time); medians beside it. *less 8 entries* leaves out what a call costs whatever it attends to
(the time over 8 entries); at most {LIMIT:g} times the reading is wanted there:"""


def page() -> str | None:
    """The whole page; None where nothing has been measured."""
    data = results("decode_attention")
    if data is None:
        return None
    found = machine(data["machine"])
    met = [_net(row) <= LIMIT for row in data["rows"]]
    parts = ["# Attention of one decoded token over one layer's cache, and reading its bytes"]
    parts += [
        f"{found}; {data['machine']['date']}, load {data['machine']['load'][0]}. {HOW} {sum(met)} of {len(met)} rows are."
    ]
    parts += [table(HEAD, [_cells(row) for row in data["rows"]])]
    return "\n\n".join(parts) + "\n"


def _net(row: Row) -> float:
    least = row["least"]
    return float((least["laconic"] - least["laconic, 8 entries"]) / least["read"])


def _cells(row: Row) -> list[object]:
    least, median = row["least"], row["median"]
    stored = f"{row['store']} {row['dtype']}"
    net = f"{_net(row):.2f}"
    return [
        *(row["threads"], row["tokens"], row["keep"], stored, least["read"], least["laconic"]),
        f"{least['laconic'] / least['read']:.2f}",
        net if _net(row) <= LIMIT else f"**{net}**",
        least.get("torch", ""),
        f"{median['read']}, {median['laconic']}",
    ]


if __name__ == "__main__":
    sys.exit(write_page("decode_attention", page(), "decode_attention.py"))
