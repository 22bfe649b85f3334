"""What removing visual tokens saves: LLM prefill beside its FLOPs, the methods' own overhead, peak memory.

    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/vision.py     # all token methods, 576 and 2,880 visual tokens
    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/vision.py --methods fastv divprune --quick

Random models: LLaVA-1.5's class with 576 visual tokens and LLaVA-NeXT's with 2,880 (thumbnail and 2 x 2 crops, and 48 line
ends), the decoder of the other benchmarks (hidden 512, 8 layers), fp32. A round runs the plain session and every method
once; ratios are medians of paired rounds. Writes results/vision.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from typing import Any

import torch
from common import HEAD, HEADS, KV_HEADS, LAYERS, alternate, memory, ratio, reset_peak, save, say, target
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

import laconic
from laconic.measure.stats import Stats

SIDE, PATCH, IMAGE, VOCAB = 336, 14, 7, 4096
QUESTION = 40
SPECS = {
    "fastv": "fastv:layer=1",
    "ts_llava": None,  # needs a video
}
"""What the benchmark asks for where a method's defaults are made for another depth; None: not measured here."""
LEAST = {576: 0.25, 2880: 0.25}


def model(tokens: int) -> Any:
    """A random model whose images take `tokens` visual tokens."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=64,
    )
    text = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=HEADS * HEAD,
        intermediate_size=1536,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=8192,
        eos_token_id=None,
        pad_token_id=0,
    )
    shared: dict[str, Any] = {"vision_config": vision, "text_config": text, "image_token_index": IMAGE}
    if tokens == 576:
        return LlavaForConditionalGeneration(LlavaConfig(**shared)).eval().requires_grad_(False)
    config = LlavaNextConfig(**shared, image_grid_pinpoints=[[2 * SIDE, 2 * SIDE]])
    return LlavaNextForConditionalGeneration(config).eval().requires_grad_(False)


def inputs(tokens: int) -> dict[str, torch.Tensor]:
    """One prompt: an image and a question behind it."""
    torch.manual_seed(1)
    line_ends = 0 if tokens == 576 else 2 * SIDE // PATCH
    ids = torch.randint(10, VOCAB, (1, 4 + tokens + line_ends + QUESTION))
    ids[:, 4 : 4 + tokens + line_ends] = IMAGE
    views = 1 if tokens == 576 else 5
    if views == 1:
        return {"input_ids": ids, "pixel_values": torch.randn(1, 3, SIDE, SIDE)}
    return {
        "input_ids": ids,
        "pixel_values": torch.randn(1, views, 3, SIDE, SIDE),
        "image_sizes": torch.tensor([[2 * SIDE, 2 * SIDE]]),
    }


def candidates() -> list[str]:
    """Every method that shortens visual tokens without weights of its own."""
    return [
        entry.name for entry in laconic.list_methods() if entry.site in ("encoder", "tokens") and entry.modality != "text"
    ]


def spec(name: str) -> str | None:
    return SPECS.get(name, name)


def create(name: str, keep: float) -> list[laconic.Method]:
    text = spec(name)
    return [] if name == "none" or text is None else [laconic.create_method(text, keep=keep)]


def once(lm: Any, given: dict[str, torch.Tensor], methods: list[laconic.Method]) -> Stats:
    """The figures of one prefill and one token."""
    with warnings.catch_warnings(), laconic.compress(lm, *methods) as session:
        warnings.simplefilter("ignore")
        lm.generate(**given, max_new_tokens=1, do_sample=False)
    return session.stats


def prefills(tokens: int, names: list[str], keep: float, rounds: int) -> list[dict[str, Any]]:
    """Rows of one prompt length."""
    lm, given = model(tokens), inputs(tokens)
    usable = []
    for name in names:
        try:
            once(lm, given, create(name, keep))
            usable.append(name)
        except (laconic.LaconicError, ValueError) as error:
            say(f"vision {tokens} {name}: left out: {error}")
    last: dict[str, Stats] = {}
    own: dict[str, list[float]] = {name: [] for name in usable}

    def call(name: str) -> float:
        last[name] = stats = once(lm, given, create(name, keep))
        if name != "none":
            own[name].append(stats.compress_seconds)
        return stats.prefill_seconds

    times = alternate({name: lambda name=name: call(name) for name in ["none", *usable]}, rounds)  # type: ignore[misc]
    whole = statistics.median(times["none"])
    rows: list[dict[str, Any]] = []
    for name in usable:
        stats, took = last[name], ratio(times, name, "none")
        flops = stats.prefill_flops / stats.prefill_flops_full
        overhead = statistics.median(own[name]) / whole
        row = {
            "section": "vision",
            "method": spec(name),
            "tokens": tokens,
            "keep": keep,
            "achieved": round(stats.achieved, 4),
        }
        row |= {"ms": {k: round(statistics.median(times[k]) * 1e3, 1) for k in ("none", name)}, "time": took}
        row |= {"flops": round(flops, 4), "overhead": round(overhead, 4)}
        row |= {"time/flops": round(took["ratio"] / flops, 4)}
        rows.append(row)
        text = f"{name}, {tokens} visual tokens, keep={keep:g}"
        rows.append(target("vision time", row["time/flops"], 1.1, True, f"{text}: prefill time over what its FLOPs predict"))
        rows.append(
            target("vision overhead", row["overhead"], 0.05, True, f"{text}: own work over the uncompressed prefill")
        )
    return rows


def peak(name: str, tokens: int, keep: float) -> int:
    """Peak bytes of one prompt above the loaded model, in this process."""
    lm, given = model(tokens), inputs(tokens)
    lm(input_ids=given["input_ids"][:, :2] * 0 + 11)
    methods = create(name, keep)
    reset_peak()
    before = memory("VmRSS")
    once(lm, given, methods)
    return memory("VmHWM") - before


def peaks(tokens: int, names: list[str], keep: float) -> list[dict[str, Any]]:
    """Peak memory of every method, a fresh process each."""
    rows: list[dict[str, Any]] = []
    plain = 0
    for name in ["none", *names]:
        command = [sys.executable, __file__, "--peak", name, "--tokens", str(tokens), "--keep", str(keep)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            say(f"vision memory {name} FAILED: {done.stderr.strip().splitlines()[-1][:200]}")
            continue
        value = int(json.loads(done.stdout)["peak"])
        rows.append({"section": "vision memory", "method": name, "tokens": tokens, "peak_mb": round(value / 1e6, 1)})
        say(f"vision memory {name}: {value / 1e6:.1f} MB")
        if name == "none":
            plain = value
        elif plain:
            text = f"{name}, {tokens} visual tokens, keep={keep:g}: peak memory / uncompressed peak"
            rows.append(target("memory", round(value / plain, 4), 0.9999, True, text))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=None)
    parser.add_argument("--keep", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="576 tokens only, three rounds, no memory")
    parser.add_argument("--tokens", type=int, default=576, help=argparse.SUPPRESS)
    parser.add_argument("--peak", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(json.dumps({"peak": peak(arguments.peak, arguments.tokens, arguments.keep)}))
        return
    names = [name for name in (arguments.methods or candidates()) if spec(name) is not None]
    rows: list[dict[str, Any]] = []
    for tokens in (576,) if arguments.quick else (576, 2880):
        rows += prefills(tokens, names, arguments.keep, 3 if arguments.quick else arguments.rounds)
    if not arguments.quick:
        timed = {
            row["method"].partition(":")[0] for row in rows if row.get("tokens") == 2880 and row.get("section") == "vision"
        }
        rows += peaks(2880, [name for name in names if name in timed], arguments.keep)
    save("vision", rows, quick=arguments.quick)


if __name__ == "__main__":
    main()
