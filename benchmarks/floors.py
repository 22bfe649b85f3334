"""The scorers' floor: the same choice of entries written as bare tensor operations, without cache, session or checks.

    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/floors.py      # half a minute on two idle cores

For one layer of the benchmark model and keep=0.1: score, top-k, gather of keys and values, on tensors that have left the
CPU's caches, as a layer's have after its attention. What `peer_kvpress.py` measured for laconic and for kvpress stands
beside it: a target below this floor cannot be reached by any code that runs these operations. Window methods are left out:
there the order of operations decides, and laconic's is faster than the plain one. Writes results/floors.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch
from common import HEAD, HEADS, KV_HEADS, RESULTS, save, say
from torch import Tensor

LAYERS, ROUNDS = 8, 15
LENGTHS = (1024, 4096, 16384)


def knorm(q: Tensor, k: Tensor) -> Tensor:
    return -torch.linalg.vector_norm(k[0], dim=-1)


def keydiff(q: Tensor, k: Tensor) -> Tensor:
    inverse = 1 / torch.linalg.vector_norm(k[0], dim=-1)
    anchor = inverse[:, None] @ k[0]
    return -(k[0] @ anchor.transpose(1, 2))[..., 0] * inverse


def tova(q: Tensor, k: Tensor) -> Tensor:
    last = q[0, :, -1].view(KV_HEADS, HEADS // KV_HEADS, HEAD) * HEAD**-0.5
    return (last @ k[0].transpose(1, 2)).softmax(-1).mean((0, 1)).expand(KV_HEADS, -1)


SCORERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "knorm": knorm,
    "keydiff": keydiff,
    "tova": tova,
}


def layer(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [1, H, n, D], keys and values [1, Hkv, n, D] as a decoder layer makes them: heads within tokens."""
    q = torch.randn(1, n, HEADS, HEAD).transpose(1, 2)
    k, v = (torch.randn(1, n, KV_HEADS, HEAD).transpose(1, 2) for _ in range(2))
    return q, k, v


def choose(name: str, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What stays: keys and values [entries, D], a tenth of all."""
    scores = SCORERS[name](q, k)
    n = k.shape[2]
    best = scores.topk(n // 10, sorted=False).indices[..., None].expand(-1, -1, HEAD)
    return k[0].gather(1, best), v[0].gather(1, best)


def main() -> None:
    measured = {
        (r["method"], r["tokens"]): r
        for r in json.loads((RESULTS / "peer_scorers.json").read_text())["rows"]
        if "own_ms_per_layer" in r
    }
    flush = torch.zeros(1 << 24)
    table = []
    for n in LENGTHS:
        tensors = [layer(n) for _ in range(LAYERS)]
        for name in SCORERS:
            times = []
            for i in range(ROUNDS * LAYERS):
                flush.add_(1)
                began = time.perf_counter()
                choose(name, *tensors[i % LAYERS])
                times.append(time.perf_counter() - began)
            floor = statistics.median(times[LAYERS:]) * 1e3
            row = {"section": "floors", "method": name, "tokens": n, "floor_ms": round(floor, 4)}
            peer = measured.get((name, n))
            if peer:
                own = peer["own_ms_per_layer"]
                row |= {"laconic_ms": own["laconic"], "kvpress_ms": own["kvpress"]}
                row |= {"floor/half of kvpress": round(floor / (own["kvpress"] / 2), 3)}
            table.append(row)
            say(f"floors {row}")
    save("floors", table)


if __name__ == "__main__":
    main()
