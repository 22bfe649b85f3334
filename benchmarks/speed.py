"""laconic beside stock transformers, in one process: interleaved pairs, medians, paired ratios with quartiles.

    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/speed.py  # all sections, about 6 minutes on two idle cores
    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/speed.py attention decode --quick

Sections: attention (cache update + attention of one decoded token), decode (whole model), prefill, kept (decode and bytes
at keep=0.1), fastkv (prefill against its FLOPs). Writes results/speed_<section>.json. `--quick` leaves out 16k prefills.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import traceback
import warnings
from functools import cache, partial
from typing import Any

import torch
from caches import decoder, filled, kv_bytes, shortened, weights_bytes
from common import (
    DTYPES,
    HEAD,
    HEADS,
    KV_HEADS,
    LAYERS,
    Timed,
    alternate,
    clock,
    decode,
    memory_bandwidth,
    milliseconds,
    model,
    prefill,
    prompt,
    random_kv,
    ratio,
    save,
    say,
    stock_cache,
    target,
    timed,
)
from transformers import DynamicCache
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

import laconic
from laconic.cache import attention as seam
from laconic.method import create_method
from laconic.ops.attend import attend
from laconic.step import Step

Row = dict[str, Any]
EVICTING = [
    "snapkv",
    "adakv",
    "expected_attention",
    "keydiff",
    "knorm",
    "pyramidkv",
    "tova",
    "h2o",
    "streaming_llm",
    "truncate",
    "random",
]
QUICK = False


@cache
def bandwidth() -> float:
    value = memory_bandwidth()
    say(f"memory bandwidth: {value / 1e9:.1f} GB/s")
    return value


def at_limit(nbytes: int, milliseconds_measured: float) -> Row:
    """The least time that reading these bytes takes, and how far the measured time is from it."""
    least = nbytes / bandwidth() * 1e3
    return {"bytes_read": nbytes, "limit_ms": round(least, 3), "times_limit": round(milliseconds_measured / least, 2)}


def attention_at(lm: Any, dtype: str, tokens: int, rounds: int) -> list[Row]:
    modules = [layer.self_attn for layer in lm.model.layers]
    kv = random_kv(tokens, dtype)
    new = torch.randn(3, 1, HEADS, 1, HEAD).to(DTYPES[dtype])
    q, k, v = new[0], new[1, :, :KV_HEADS], new[2, :, :KV_HEADS]
    ours, caches = filled(lm, kv), [stock_cache(lm, kv) for _ in range(2)]
    ours.step = Step(tokens, 1, torch.tensor([[tokens]]), [tokens + 1])

    def stock() -> None:
        for i, module in enumerate(modules):
            keys, values = caches[0].update(k, v, i)
            sdpa_attention_forward(module, q, keys, values, None, scaling=HEAD**-0.5)

    def repeated() -> None:
        for i in range(LAYERS):
            keys, values = (repeat_kv(x, HEADS // KV_HEADS) for x in caches[1].update(k, v, i))
            torch.nn.functional.scaled_dot_product_attention(q, keys, values)

    def laconic_step() -> None:
        for i, module in enumerate(modules):
            seam.attention(module, q, *ours.update(k, v, i), None, HEAD**-0.5)

    times = alternate({"stock": timed(stock), "repeat": timed(repeated), "laconic": timed(laconic_step)}, rounds, 3)
    ms = milliseconds(times)
    row: Row = {"section": "attention", "dtype": dtype, "tokens": tokens, "ms": ms}
    row |= {"stock/laconic": ratio(times, "stock", "laconic"), "repeat/laconic": ratio(times, "repeat", "laconic")}
    row |= at_limit(kv_bytes(tokens, dtype), ms["laconic"])
    say(f"attention {dtype} {tokens}: {ms}, {row['times_limit']} x the limit")
    if tokens != 16384:
        return [row]
    text = f"nothing removed, 16k {dtype}: cache update + attention of a token, stock / laconic"
    wanted = {"fp32": 1.7, "bf16": 2.0}[dtype]
    return [row, target("attention", row["stock/laconic"]["ratio"], wanted, False, text)]


def section_attention() -> list[Row]:
    """Cache update and attention of one decoded token, all eight layers."""
    rows: list[Row] = []
    for dtype in DTYPES:
        lm = model(dtype)
        for tokens, rounds in ((1024, 60), (4096, 40), (16384, 30)):
            rows += attention_at(lm, dtype, tokens, rounds)
    return rows


def decode_at(lm: Any, dtype: str, tokens: int, rounds: int) -> list[Row]:
    kv = random_kv(tokens, dtype)
    stock, ours = stock_cache(lm, kv), filled(lm, kv)
    times = alternate({"stock": timed(lambda: decode(lm, stock), 5), "laconic": decoder(lm, ours)}, rounds, 2)
    ms = milliseconds(times)
    row: Row = {"section": "decode", "dtype": dtype, "tokens": tokens, "ms": ms}
    row["stock/laconic"] = ratio(times, "stock", "laconic")
    row |= at_limit(kv_bytes(tokens, dtype) + weights_bytes(lm), ms["laconic"])
    say(f"decode {dtype} {tokens}: {ms}, {row['times_limit']} x the limit")
    if tokens == 4096:
        return [row]
    least, name = (1.25, "16k") if tokens == 16384 else (1.0, "1k")
    text = f"nothing removed, {name} {dtype}: decoding with the whole model, stock / laconic"
    return [row, target("decode", row["stock/laconic"]["ratio"], least, False, text)]


def section_decode() -> list[Row]:
    """Whole model, one decoded token, nothing removed."""
    rows: list[Row] = []
    for dtype in DTYPES:
        lm = model(dtype)
        for tokens, rounds in ((1024, 30), (4096, 16), (16384, 12)):
            rows += decode_at(lm, dtype, tokens, rounds)
    return rows


def prefill_at(dtype: str, tokens: int, rounds: int) -> list[Row]:
    lm, ids = model(dtype), prompt(tokens)

    def ours() -> float:
        with laconic.compress(lm):
            return clock(lambda: prefill(lm, ids))

    calls = {"stock": timed(lambda: prefill(lm, ids, DynamicCache(config=lm.config))), "laconic": ours}
    times = alternate(calls, rounds, 1 if tokens < 16384 else 0)
    row: Row = {"section": "prefill", "dtype": dtype, "tokens": tokens, "ms": milliseconds(times)}
    row["laconic/stock"] = ratio(times, "laconic", "stock")
    text = f"nothing removed, {tokens // 1024}k {dtype}: prefill, laconic / stock"
    return [row, target("prefill", row["laconic/stock"]["ratio"], 1.03, True, text)]


def section_prefill() -> list[Row]:
    """Whole model, prefill, nothing removed."""
    sizes = [("fp32", 1024, 12), ("fp32", 4096, 4), ("fp32", 16384, 2), ("bf16", 1024, 8), ("bf16", 4096, 3)]
    return [row for size in sizes if not (QUICK and size[1] > 1024) for row in prefill_at(*size)]


def section_kept() -> list[Row]:
    """keep=0.1 of 16k: decoding beside an uncompressed context of a tenth of the length, and the bytes that stay."""
    rows: list[Row] = []
    tokens, keep = 16384, 0.1
    for dtype in DTYPES:
        lm, kv = model(dtype), random_kv(tokens, dtype)
        short = random_kv(int(tokens * keep), dtype)
        calls, bytes_kept = {"tenth": decoder(lm, filled(lm, short))}, {}
        for name in EVICTING if dtype == "fp32" else ["snapkv", "adakv"]:
            if name == "h2o":  # choosing from 16k takes it minutes, and its decoding is like TOVA's
                continue
            method = create_method(name, keep=keep)
            cache = shortened(lm, method, kv)
            bytes_kept[name] = cache.nbytes / kv_bytes(tokens, dtype)
            calls[name] = decoder(lm, cache, method)
        times: Timed = alternate(calls, 20, 2)
        ms = milliseconds(times)
        say(f"kept {dtype}: {ms}")
        for name, share in bytes_kept.items():
            against = ratio(times, name, "tenth")
            row = {
                "section": "kept",
                "dtype": dtype,
                "method": name,
                "tokens": tokens,
                "ms": {name: ms[name], "tenth": ms["tenth"]},
            }
            row |= {"bytes_kept": round(share, 5), "method/tenth": against}
            rows.append(row | at_limit(kv_bytes(int(tokens * keep), dtype) + weights_bytes(lm), ms[name]))
            text = f"{name}, keep=0.1 of 16k, {dtype}: decode, against 1.6k uncompressed in laconic"
            rows.append(target("kept decode", against["ratio"], 1.10, True, text))
            text = f"{name}, keep=0.1 of 16k, {dtype}: stored bytes off 10 % (relative)"
            rows.append(target("kept bytes", round(abs(share / keep - 1), 5), 0.02, True, text))
    return rows


def section_fastkv() -> list[Row]:
    """FastKV's prefill at 16k against its FLOPs, and against the measured speed of attention and of everything else."""
    tokens = 4096 if QUICK else 16384
    lm, ids = model(), prompt(tokens)
    sessions: dict[str, Any] = {}

    def run(name: str, *methods: laconic.Method) -> float:
        with laconic.compress(lm, *methods) as sessions[name]:
            return clock(lambda: prefill(lm, ids))

    method = create_method("fastkv", keep=0.1, tsp_rate=0.2)
    times = alternate({"none": lambda: run("none"), "fastkv": lambda: run("fastkv", method)}, 2, 0)
    stats = sessions["fastkv"].stats
    measured, flops = ratio(times, "fastkv", "none"), stats.prefill_flops / stats.prefill_flops_full
    travel = stats.stream[LAYERS - 1]
    alone = {}
    for n in (tokens, travel):
        qkv = [torch.randn(1, n, h, HEAD).transpose(1, 2) for h in (HEADS, KV_HEADS, KV_HEADS)]
        alone[n] = min(clock(partial(attend, *qkv, HEAD**-0.5, causal=True)) for _ in range(3))
    whole = statistics.median(times["none"])
    linear, half = whole - LAYERS * alone[tokens], LAYERS // 2
    expected = (linear / 2 * (1 + travel / tokens) + half * (alone[tokens] + alone[travel])) / whole
    row: Row = {"section": "fastkv", "dtype": "fp32", "tokens": tokens, "ms": milliseconds(times), "fastkv/none": measured}
    row |= {"flops_ratio": round(flops, 4), "rates_ratio": round(expected, 4), "attention_ms": round(alone[tokens] * 1e3, 1)}
    row["attention_share_of_prefill"] = round(LAYERS * alone[tokens] / whole, 3)
    text = f"fastkv (rate 0.2, half depth), {tokens // 1024}k: time ratio {measured['ratio']} over FLOPs' {flops:.4f}"
    rates = f"the same over the ratio that the measured speeds of attention and of the rest predict, {expected:.4f}"
    return [
        row,
        target("fastkv", round(measured["ratio"] / flops, 4), 1.10, True, text),
        target("fastkv rates", round(measured["ratio"] / expected, 4), 1.10, True, rates),
    ]


SECTIONS = {name.removeprefix("section_"): f for name, f in list(globals().items()) if name.startswith("section_")}


def main() -> int:
    global QUICK
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), metavar="section", help=", ".join(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    QUICK = arguments.quick
    warnings.simplefilter("ignore")
    failed = 0
    for name in arguments.sections:
        say(f"section {name}")
        try:
            save(f"speed_{name}", SECTIONS[name](), bandwidth=bandwidth(), quick=QUICK)
        except Exception:  # the other sections still run; the exit code tells
            traceback.print_exc()
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
