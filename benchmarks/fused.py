"""Decode attention over quantised and over ragged entries, beside laconic's own dense float32, interleaved in one process.

    PYTHONPATH=$PWD/src python benchmarks/fused.py            # about three minutes on two idle cores
    PYTHONPATH=$PWD/src python benchmarks/fused.py --quick

One call is one decoded token in 8 layers with 2 KV heads. Writes results/fused.json: the least
milliseconds and the median of the paired ratios.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import KV_HEADS, LAYERS, Timed, alternate, ratio, save, say, target, timed

from laconic.cache.parts.base import DensePart
from laconic.cache.parts.ragged import RaggedPart
from laconic.ops.fused import attend_quantised
from laconic.ops.quantise import quantise_keys, quantise_values

TOKENS, MEAN = 16384, 1638
Call = Callable[[], Any]
Row = dict[str, Any]


def dense(head: int, tokens: int) -> list[DensePart]:
    shape = (1, KV_HEADS, tokens, head)
    return [DensePart(torch.randn(shape), torch.randn(shape), {}) for _ in range(LAYERS)]


def times_of(times: Timed, name: str, against: str) -> Row:
    """Least milliseconds of both, and how many times faster `name` is."""
    least = {n: round(min(times[n]) * 1e3, 3) for n in (name, against)}
    return {"least_ms": least, "speedup": ratio(times, against, name)}


def quantised_at(head: int, group: int, rounds: int) -> list[Row]:
    parts, q, scale = dense(head, TOKENS), torch.randn(1, KV_HEADS * group, 1, head), head**-0.5

    def whole() -> None:
        for part in parts:
            part.attend(q, scale, None)

    def packed(bits: int) -> Call:
        stored = [(quantise_keys(part.keys, bits), quantise_values(part.values, bits)) for part in parts]

        def run() -> None:
            for keys, values in stored:
                attend_quantised(q, keys, values, scale)

        return run

    calls = {"dense": timed(whole)} | {f"{bits} bits": timed(packed(bits)) for bits in (2, 3, 4, 8)}
    times, rows = alternate(calls, rounds, 2), []
    for name in list(calls)[1:]:
        rows.append({"section": "quantised", "head": head, "group": group, "tokens": TOKENS, "what": name})
        rows[-1] |= times_of(times, name, "dense")
        say(f"head {head}, {group} queries per KV head, {name}: {rows[-1]['least_ms']}, {rows[-1]['speedup']}")
    text = f"head {head}, {group} queries per KV head, 16k"
    rows.append(target("4 bits", rows[2]["speedup"]["ratio"], 1.3, False, f"{text}: dense fp32 / 4 bits"))
    rows.append(target("2 bits", ratio(times, "2 bits", "4 bits")["ratio"], 1.0, True, f"{text}: 2 bits / 4 bits"))
    return rows


def ragged_at(head: int, group: int, rounds: int) -> list[Row]:
    parts, q, scale = dense(head, MEAN), torch.randn(1, KV_HEADS * group, 1, head), head**-0.5
    long = dense(head, 2 * MEAN)
    lengths = torch.tensor([[int(1.6 * MEAN), 2 * MEAN - int(1.6 * MEAN)]])
    uneven = [RaggedPart(part.keys, part.values, {}, lengths) for part in long]

    def all_of(stored: list[Any]) -> Call:
        def run() -> None:
            for part in stored:
                part.attend(q, scale, None)

        return run

    times = alternate({"dense": timed(all_of(parts), 5), "ragged": timed(all_of(uneven), 5)}, rounds, 2)
    row: Row = {"section": "ragged", "head": head, "group": group, "tokens": MEAN, "what": f"ragged {lengths.tolist()[0]}"}
    row |= times_of(times, "ragged", "dense")
    text = f"head {head}, {group} queries per KV head, lengths {lengths.tolist()[0]}: ragged / dense of the same mean"
    return [row, target("ragged", ratio(times, "ragged", "dense")["ratio"], 1.1, True, text)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    rounds = 7 if parser.parse_args().quick else 21
    rows: list[Row] = []
    for head in (64, 128):
        for group in (1, 4, 8):
            rows += quantised_at(head, group, rounds)
            rows += ragged_at(head, group, 2 * rounds)
    save("fused", rows)


if __name__ == "__main__":
    main()
