"""Attention of one decoded token over the cache, beside the time of reading the cache's bytes once, in the same run.

    PYTHONPATH=$PWD/src python benchmarks/decode_attention.py            # about four minutes on two idle cores
    PYTHONPATH=$PWD/src python benchmarks/decode_attention.py --quick

One layer of SmolLM2-135M (3 KV heads, 3 queries each, head size 64). Calls walk over layers of more bytes in all than the
processor's caches hold, as the layers of a model do. Everything takes turns, call by call, with the reading of as many bytes
by torch's `max`, which is the limit. With one thread, time is the thread's own; with two it is the clock's, which needs an
idle machine. Noise only adds, so the least of many short calls is the figure; medians stand beside it. Writes
results/decode_attention.json: microseconds of one layer.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from common import DTYPES, alternate, save, say

from laconic.cache.parts.base import DensePart, Part
from laconic.cache.parts.quantised import QuantisedPart
from laconic.cache.parts.ragged import RaggedPart
from laconic.ops.attend import attend_alone
from laconic.ops.quantise import quantise_keys, quantise_values

KV_HEADS, GROUP, HEAD = 3, 3, 64
COLD = 1 << 26  # bytes of all layers that calls walk over
Calls = dict[str, Callable[[], float]]


def dense(n: int, dtype: str) -> Part:
    shape = (1, KV_HEADS, n, HEAD)
    return DensePart(torch.randn(shape).to(DTYPES[dtype]), torch.randn(shape).to(DTYPES[dtype]), {})


def ragged(n: int, dtype: str) -> Part:
    """Heads of 1.6 n, n and 0.4 n entries."""
    keys, values, _ = dense(2 * n, dtype).padded()
    return RaggedPart(keys, values, {}, torch.tensor([[n * 8 // 5, n, n * 3 - n - n * 8 // 5]]))


def packed(n: int, dtype: str) -> Part:
    """4 bits in groups of 64."""
    keys, values, columns = dense(n, dtype).padded()
    index = {"index": torch.arange(n, dtype=torch.int32).expand(1, KV_HEADS, n)}
    return QuantisedPart(quantise_keys(keys, 4), quantise_values(values, 4), {**columns, **index}, keys.dtype)


STORES = {"dense": dense, "ragged": ragged, "4 bits": packed}


def in_turn(layers: list[Any], f: Callable[[Any], Any]) -> Callable[[], float]:
    """A call for `alternate`: seconds of `f` on the next of `layers`."""
    following: Iterator[Any] = itertools.cycle(layers)

    now = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds() -> float:
        layer = next(following)
        began = now()
        f(layer)
        return now() - began

    return seconds


def attention(q: torch.Tensor, scale: float) -> Callable[[Part], Any]:
    """What a layer does with one part: no merge, so no log-sum-exp where the part is dense."""

    def attend(part: Part) -> Any:
        if isinstance(part, DensePart):
            return attend_alone(q, part.keys, part.values, scale)
        return part.attend(q, scale, None)

    return attend


def kernel_of_torch(q: torch.Tensor, scale: float) -> Callable[[Part], Any]:
    """Torch's flash kernel on the same dense entries, the queries of a group as its rows."""
    rows = q.view(1, KV_HEADS, GROUP, HEAD)

    def attend(part: Part) -> Any:
        assert isinstance(part, DensePart)
        return torch.nn.functional.scaled_dot_product_attention(rows, part.keys, part.values, scale=scale)

    return attend


def cell(store: str, dtype: str, n: int, rounds: int) -> dict[str, Any]:
    """Least and median microseconds of every call over n entries of each head."""
    q, scale = torch.randn(1, KV_HEADS * GROUP, 1, HEAD).to(DTYPES[dtype]), HEAD**-0.5
    first = STORES[store](n, dtype)
    count = min(256, max(4, COLD // first.nbytes))
    layers = [first, *(copy.deepcopy(first) for _ in range(count - 1))]
    empty = [STORES[store](8, dtype)]
    bytes_of = torch.zeros(count, first.nbytes // 4, dtype=torch.int32)
    calls: Calls = {
        "read": in_turn(list(bytes_of), torch.max),
        "laconic": in_turn(layers, attention(q, scale)),
        "laconic, 8 entries": in_turn(empty, attention(q, scale)),
    }
    if store == "dense":
        calls["torch"] = in_turn(layers, kernel_of_torch(q, scale))
    times = alternate(calls, rounds, 8)
    least = {name: round(min(seconds) * 1e6, 1) for name, seconds in times.items()}
    median = {name: round(statistics.median(seconds) * 1e6, 1) for name, seconds in times.items()}
    return {"nbytes": first.nbytes, "least": least, "median": median}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few calls")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048, 6144, 16384])
    arguments = parser.parse_args()
    rounds = 20 if arguments.quick else 60
    rows = []
    for threads, keep, tokens in itertools.product(arguments.threads, (1.0, 0.1), arguments.tokens):
        torch.set_num_threads(threads)
        for store, dtype in itertools.product(STORES, DTYPES):
            row = {"threads": threads, "tokens": tokens, "keep": keep, "store": store, "dtype": dtype}
            row |= cell(store, dtype, int(tokens * keep), rounds)
            rows.append(row)
            least = row["least"]
            say(f"{threads} threads, {store} {dtype}, {keep:g} of {tokens}: {least}, {least['laconic'] / least['read']:.2f}")
            save("decode_attention", rows)  # a run that is stopped keeps what it has


if __name__ == "__main__":
    main()
