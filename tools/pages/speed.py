"""results/*.json -> results/speed.md: one table of targets (wanted, measured, reached), then all measurements.

python -m tools.pages.speed
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tools.pages.parts import Row, machine, results, spread, table, write_page

FILES = [
    "speed_attention",
    "speed_decode",
    "speed_prefill",
    "speed_kept",
    "speed_fastkv",
    "peer_scorers",
    "peer_scorers_one_thread",
    "peer_decode",
    "memory",
    "long_memory",
]


def targets(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        wanted = f"{'at most' if row['at_most'] else 'at least'} {row['limit']:g}" if row["name"] != "memory" else "below 1"
        lines.append([row["text"], wanted, f"{row['value']:.3g}", "reached" if row["reached"] else "**missed**"])
    return table(["what", "target", "measured", ""], lines)


def limited(row: Row) -> list[Any]:
    return [row["limit_ms"], row["times_limit"]]


def measurements(name: str, rows: Sequence[Row]) -> str:
    """The full table of one result file."""
    limit = ["bytes / bandwidth, ms", "laconic / that"]
    if name == "speed_attention":
        head = [
            "dtype",
            "tokens",
            "stock ms",
            "repeated KV ms",
            "laconic ms",
            "stock / laconic",
            "repeated / laconic",
            *limit,
        ]
        body = [
            [
                r["dtype"],
                r["tokens"],
                *r["ms"].values(),
                spread(r["stock/laconic"]),
                spread(r["repeat/laconic"]),
                *limited(r),
            ]
            for r in rows
        ]
    elif name == "speed_decode":
        head = ["dtype", "tokens", "stock ms", "laconic ms", "stock / laconic", *limit]
        body = [[r["dtype"], r["tokens"], *r["ms"].values(), spread(r["stock/laconic"]), *limited(r)] for r in rows]
    elif name == "speed_prefill":
        head = ["dtype", "tokens", "stock ms", "laconic ms", "laconic / stock"]
        body = [[r["dtype"], r["tokens"], *r["ms"].values(), spread(r["laconic/stock"])] for r in rows]
    elif name == "speed_kept":
        head = ["method", "dtype", "ms per token", "1.6k uncompressed ms", "ratio", "bytes kept", *limit]
        body = [
            [r["method"], r["dtype"], *r["ms"].values(), spread(r["method/tenth"]), f"{r['bytes_kept']:.4f}", *limited(r)]
            for r in rows
        ]
    elif name == "speed_fastkv":
        head = [
            "tokens",
            "none ms",
            "fastkv ms",
            "time ratio",
            "FLOPs ratio",
            "ratio from measured speeds",
            "attention's share",
        ]
        body = [
            [
                r["tokens"],
                r["ms"]["none"],
                r["ms"]["fastkv"],
                spread(r["fastkv/none"]),
                r["flops_ratio"],
                r["rates_ratio"],
                r["attention_share_of_prefill"],
            ]
            for r in rows
        ]
    elif name.startswith("peer_scorers"):
        head = ["method", "tokens", "layers", "laconic, ms a layer", "kvpress, ms a layer", "laconic share", "kvpress share"]
        body = []
        for r in rows:
            own = r.get("own_ms_per_layer", {"laconic": "", "kvpress": ""})
            shares = [f"{r['share'][who]:.2%}" for who in ("laconic", "kvpress")]
            body.append([r["method"], r["tokens"], r["layers"], own["laconic"], own["kvpress"], *shares])
    elif name == "peer_decode":
        head = ["who", "tokens", "ms per token", "bytes kept"]
        body = [[r["who"], r["tokens"], r["ms"], f"{r['bytes_kept']:.4f}"] for r in rows]
    elif name == "long_memory":
        marks = sorted({int(tokens) for r in rows for tokens in r["peak_mb"]})
        head = [
            "method",
            *(f"{tokens // 1024}k, MB" for tokens in marks),
            "largest / smallest",
            "bytes a token",
            "cache after, MB",
        ]
        body = [
            [
                r["method"] + (" (every entry kept)" if r["grows"] else ""),
                *(r["peak_mb"].get(str(tokens), "") for tokens in marks),
                f"{r['ratio']:.3f}",
                r["bytes_per_token"],
                list(r["kept_mb"].values())[-1],
            ]
            for r in rows
        ]
    else:
        head = ["who", "method", "tokens", "peak above the model, MB", "cache after, MB"]
        body = [[r["who"], r["method"], r["tokens"], r["peak_mb"], r["kept_mb"]] for r in rows]
    return table(head, body)


def page() -> str | None:
    """The whole page; None where nothing has been measured."""
    found = {name: data for name in FILES if (data := results(name)) is not None}
    if not found:
        return None
    wanted = [row for data in found.values() for row in data["rows"] if row.get("kind") == "target"]
    first = next(iter(found.values()))["machine"]
    out = [
        "# Speed and memory, measured",
        f"{machine(first)}, Python {first['python']}; {first['date']}. Written by `tools/pages/speed.py`; how to run: "
        "`benchmarks/README.md`.",
        f"{sum(r['reached'] for r in wanted)} of {len(wanted)} targets reached.",
        targets(wanted),
    ]
    for name, data in found.items():
        rows = [row for row in data["rows"] if row.get("kind") != "target"]
        notes = [f"taken {data['machine']['date']}, load {data['machine']['load'][0]}"]
        if "bandwidth" in data:
            notes.append(f"memory bandwidth {data['bandwidth'] / 1e9:.1f} GB/s")
        if "peer" in data:
            notes.append(", ".join(f"{k} {v}" for k, v in data["peer"].items()))
        if "chunk" in data:
            layers = {r["layers"] for r in rows}
            notes.append(
                f"{data['budget']} entries, {data['chunk']} tokens a chunk, {', '.join(map(str, layers))} layers, fp32"
            )
        if data.get("quick"):
            notes.append("QUICK RUN: sizes left out")
        out += [f"## {name}", "; ".join(notes) + ".", measurements(name, rows)]
    return "\n\n".join(out) + "\n"


if __name__ == "__main__":
    sys.exit(write_page("speed", page(), "run_all.py"))
