"""Decode attention on a GPU: laconic's Triton kernels beside torch's SDPA, and beside the time to read the bytes once.

    PYTHONPATH=$PWD/src python benchmarks/gpu_decode.py

One layer, one decoded token, 32 query heads on 8 KV heads of 128, bf16: dense beside SDPA (`enable_gqa=True`), 4 and 2 bits
beside dense bf16, ragged heads (an uneven tenth of the context, as AdaKV leaves it) beside a dense part of the same mean
length. Medians of interleaved rounds with CUDA events; a buffer larger than the level-2 cache is written before each call,
which also gives Python the time to launch it, so the figures are the device's time alone. Writes results/gpu_decode.json;
`python -m tools.pages.gpu_decode` makes a page of it. `--dry-run` goes through the same code once with tiny shapes, without
a GPU in Triton's interpreter (set TRITON_INTERPRET=1); its times mean nothing, and it writes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import save, say

from laconic.ops.quantise import Quantised, quantise_keys, quantise_values
from laconic.ops.triton_decode import attend_dense, attend_quantised, attend_ragged, available

HEADS, KV_HEADS, HEAD = 32, 8, 128
SCALE = HEAD**-0.5
KEEP = 0.1
Row = dict[str, Any]
Calls = dict[str, Callable[[], Any]]


def once(f: Callable[[], Any], flush: torch.Tensor) -> float:
    """Milliseconds of one call on the device, the level-2 cache emptied before."""
    flush.zero_()
    if flush.device.type != "cuda":
        began = time.perf_counter()
        f()
        return (time.perf_counter() - began) * 1e3
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    f()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def alternate(calls: Calls, rounds: int, flush: torch.Tensor) -> dict[str, float]:
    """Median milliseconds of every call, all of them once per round after three rounds of warm-up; the order turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds + 3):
        for name in list(calls)[:: 1 if i % 2 else -1]:
            ms = once(calls[name], flush)
            if i >= 3:
                times[name].append(ms)
    return {name: statistics.median(ms) for name, ms in times.items()}


def bandwidth(device: torch.device, nbytes: int) -> float:
    """Bytes per second of copying a buffer: what is read and what is written, best of 20."""
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target, nothing = torch.empty_like(source), torch.empty(0, device=device)
    return 2 * nbytes / min(once(lambda: target.copy_(source), nothing) for _ in range(20)) * 1e3


def packed(b: int, n: int, bits: int, device: torch.device) -> tuple[Quantised, Quantised]:
    """Random keys and values [B, 8, n, 128] in groups of 64, quantised 8k tokens at a time: that needs little memory."""

    def block(first: int) -> torch.Tensor:
        return torch.randn(b, KV_HEADS, min(8192, n - first), HEAD, device=device)

    keys, values = quantise_keys(block(0), bits), quantise_values(block(0), bits)
    for first in range(8192, n, 8192):
        keys.append(quantise_keys(block(first), bits))
        values.append(quantise_values(block(first), bits))
    return keys, values


def lengths(b: int, n: int) -> list[int]:
    """Entries per head as AdaKV shares a tenth of n: every head at least a fifth of the mean, some several times."""
    mean = KEEP * n
    weights = torch.rand(b * KV_HEADS, generator=torch.Generator().manual_seed(0)).pow(3) + 0.01
    extra = weights / weights.sum() * 0.8 * mean * len(weights)
    return [int(0.2 * mean + x) for x in extra.tolist()]


def rows(b: int, n: int, device: torch.device, speed: float, rounds: int, flush: torch.Tensor) -> list[Row]:
    """All measurements at one batch size and context length."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, dtype=torch.bfloat16)

    q, k, v = random(b, HEADS, 1, HEAD), random(b, KV_HEADS, n, HEAD), random(b, KV_HEADS, n, HEAD)
    four, two = packed(b, n, 4, device), packed(b, n, 2, device)
    counts = lengths(b, n)
    ends = torch.tensor(counts).cumsum(0)
    total, mean = int(ends[-1]), int(ends[-1]) // len(counts)
    starts, count = (ends - torch.tensor(counts)).to(device), torch.tensor(counts, device=device)
    flat_k, flat_v = random(total, HEAD), random(total, HEAD)
    calls: Calls = {
        "sdpa bf16": lambda: F.scaled_dot_product_attention(q, k, v, scale=SCALE, enable_gqa=True),
        "dense bf16": lambda: attend_dense(q, k, v, SCALE),
        "4 bits": lambda: attend_quantised(q, *four, SCALE),
        "2 bits": lambda: attend_quantised(q, *two, SCALE),
        "ragged bf16, a tenth": lambda: attend_ragged(q, flat_k, flat_v, starts, count, SCALE, longest=max(counts)),
        "dense bf16, a tenth": lambda: attend_dense(q, k[:, :, :mean], v[:, :, :mean], SCALE),
    }
    nbytes = dict.fromkeys(calls, k.nbytes + v.nbytes)
    nbytes |= {name: x[0].nbytes + x[1].nbytes for name, x in (("4 bits", four), ("2 bits", two))}
    nbytes |= {
        "ragged bf16, a tenth": flat_k.nbytes + flat_v.nbytes,
        "dense bf16, a tenth": (k.nbytes + v.nbytes) // n * mean,
    }
    torch.testing.assert_close(calls["dense bf16"]()[0], calls["sdpa bf16"](), atol=2e-2, rtol=2e-2)
    times = alternate(calls, rounds, flush)
    out = []
    for name, ms in times.items():
        limit = nbytes[name] / speed * 1e3
        out.append({"batch": b, "tokens": n, "what": name, "ms": round(ms, 4), "limit_ms": round(limit, 4)})
        out[-1] |= {"times_limit": round(ms / limit, 2), "sdpa_over_this": round(times["sdpa bf16"] / ms, 2)}
        say(f"batch {b}, {n} tokens, {name}: {ms:.3f} ms, bytes / bandwidth {limit:.3f} ms")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes, once, nothing written")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.dry_run:
        print("gpu_decode.py: no CUDA device; --dry-run with TRITON_INTERPRET=1 checks the script", file=sys.stderr)
        return 2
    if not available(torch.empty(0, device=device)):
        wanted = (
            "Triton and a device of compute capability 8.0" if device.type == "cuda" else "TRITON_INTERPRET=1 and Triton"
        )
        print(f"gpu_decode.py: laconic's Triton kernels cannot run here; they need {wanted}", file=sys.stderr)
        return 2
    lengths_, batches = ([8192, 32768, 131072], [1, 8]) if not arguments.dry_run else ([300], [1])
    speed = bandwidth(device, 1 << (16 if arguments.dry_run else 30))
    flush = torch.empty(1 << (10 if arguments.dry_run else 28), dtype=torch.uint8, device=device)
    rounds = 1 if arguments.dry_run else arguments.rounds
    found = [row for b in batches for n in lengths_ for row in rows(b, n, device, speed, rounds, flush)]
    if arguments.dry_run:
        say(f"dry run: {len(found)} rows, nothing written")
        return 0
    where = {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda, "gb_per_s": round(speed / 1e9)}
    save("gpu_decode", found, **where)
    return 0


if __name__ == "__main__":
    sys.exit(main())
