"""What the benchmark scripts share: the model, random caches, interleaved timing, and the result files.

Imports torch and transformers only, so that the worker of a peer can use it in the peer's own environment.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

RESULTS = Path(__file__).parent / "results"
LAYERS, HEADS, KV_HEADS, HEAD, VOCAB = 8, 8, 2, 64, 4096
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Timed = dict[str, list[float]]

torch.set_grad_enabled(False)
torch.set_num_threads(int(os.environ.get("BENCH_THREADS", "2")))


def say(text: str) -> None:
    """Progress, on stderr: stdout of a worker is its answer."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def model(dtype: str = "fp32", layers: int = LAYERS, attention: str = "sdpa") -> LlamaForCausalLM:
    """The benchmark model: Llama class, hidden 512, 8 query and 2 KV heads of 64, MLP 1536, random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        max_position_embeddings=32768,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).to(DTYPES[dtype]).eval()


def prompt(tokens: int) -> torch.Tensor:
    """Random token ids [1, tokens]."""
    return torch.randint(0, VOCAB, (1, tokens), generator=torch.Generator().manual_seed(1))


def random_kv(tokens: int, dtype: str, layers: int = LAYERS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random keys and values [1, 2, tokens, 64] for every layer: decoding costs the same on any numbers."""
    shape = (1, KV_HEADS, tokens, HEAD)
    return [(torch.randn(shape).to(DTYPES[dtype]), torch.randn(shape).to(DTYPES[dtype])) for _ in range(layers)]


def stock_cache(lm: LlamaForCausalLM, kv: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """transformers' own cache, filled."""
    cache = DynamicCache(config=lm.config)
    for i, (keys, values) in enumerate(kv):
        cache.update(keys, values, i)
    return cache


def prefill(lm: LlamaForCausalLM, ids: torch.Tensor, cache: Any = None) -> Any:
    """One pass over the prompt with logits of the last position only, as `generate` does."""
    return lm(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)


def decode(lm: LlamaForCausalLM, cache: Any) -> Any:
    """One decoded token."""
    return lm(torch.tensor([[7]]), past_key_values=cache, use_cache=True)


def clock(f: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    f()
    return time.perf_counter() - began


def alternate(calls: dict[str, Callable[[], float]], rounds: int, warmup: int = 1) -> Timed:
    """Seconds that every call reports, all of them once per round, so that a busy machine hurts all; the order turns."""
    times: Timed = {name: [] for name in calls}
    for i in range(warmup + rounds):
        for name in list(calls) if i % 2 else list(calls)[::-1]:
            seconds = calls[name]()
            if i >= warmup:
                times[name].append(seconds)
    return times


def timed(f: Callable[[], Any], steps: int = 1) -> Callable[[], float]:
    """A call for `alternate`: the median seconds of `steps` calls of `f`."""
    return lambda: statistics.median(clock(f) for _ in range(steps))


def milliseconds(times: Timed) -> dict[str, float]:
    """Median of every call in ms."""
    return {name: round(statistics.median(seconds) * 1e3, 4) for name, seconds in times.items()}


def ratio(times: Timed, above: str, below: str) -> dict[str, Any]:
    """Median and quartiles of the paired ratios above / below (one pair per round)."""
    ratios = sorted(a / b for a, b in zip(times[above], times[below], strict=True))
    quarter = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return {
        "ratio": round(statistics.median(ratios), 4),
        "quartiles": [round(quarter[0], 4), round(quarter[2], 4)],
        "pairs": len(ratios),
    }


def memory_bandwidth(nbytes: int = 1 << 28, rounds: int = 9) -> float:
    """Bytes per second of reading a buffer far larger than the caches with both cores (best of `rounds`)."""
    buffer = torch.zeros(nbytes // 4)
    return nbytes / min(clock(lambda: torch.max(buffer)) for _ in range(rounds))


def machine() -> dict[str, Any]:
    """Where and with what the figures were taken."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "load": [round(x, 1) for x in os.getloadavg()],
    }


def save(name: str, rows: Sequence[dict[str, Any]], **more: Any) -> None:
    """Write results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), **more, "rows": list(rows)}, indent=1) + "\n")
    say(f"wrote results/{name}.json ({len(rows)} rows)")


def target(name: str, value: float, limit: float, at_most: bool, text: str, **more: Any) -> dict[str, Any]:
    """One line of the table of targets: what was measured, what was wanted, whether it was reached."""
    reached = value <= limit if at_most else value >= limit
    say(f"{name}: {value:.4g} (wanted {'<=' if at_most else '>='} {limit:.4g}) {'reached' if reached else 'MISSED'}")
    return {
        "kind": "target",
        "name": name,
        "value": value,
        "limit": limit,
        "at_most": at_most,
        "text": text,
        "reached": reached,
    } | more


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer JSON requests, one per line of stdin, until it closes. A request that fails is answered with its error."""
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:  # the driver decides what a failure means
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(reply), flush=True)


def reset_peak() -> None:
    """Start a new high-water mark of this process's memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(field: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (peak since `reset_peak`) of this process (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"{field} is not in /proc/self/status")
