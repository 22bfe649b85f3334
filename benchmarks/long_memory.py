"""Peak memory of long prompts that come in chunks: bounded by the chunk and the compressed cache, whatever the length.

    python benchmarks/long_memory.py                         # about 30 minutes on an idle core
    python benchmarks/long_memory.py --longest 32768         # about 10 minutes

A method whose longest prompt is in results/long_memory.json already is not measured again; `run_all.py` deletes the file.

Every cache method of the catalogue, a budget of 2,048 entries, ``generate(prefill_chunk_size=2048)``, two new tokens, fp32,
batch 1, one thread, the first two of the model's eight layers (what a method leaks, it leaks in every layer: see the bytes
per token). A peak is the process's high-water mark (VmHWM, Linux), reset after the method has run on 640 tokens, less what
was held then. 8k is a process of its own, the longest prompt is another, in which the mark is read and reset at 16k, 32k and
64k tokens on the way: these are the peaks of stretches of it. Processes are forked from one that has loaded the model. The
allocator is told to return what is freed (MALLOC), or its own reserve would be measured.

Methods that keep every entry in a smaller form are not bounded by a budget of entries. They are measured packing what
snapkv leaves, where they go with another method, and alone up to 32k. Writes results/long_memory.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from common import RESULTS, memory, model, prompt, reset_peak, save, say, target

import laconic
from laconic.method import create_method

Row = dict[str, Any]
BUDGET = CHUNK = 2048
LENGTHS = (8192, 16384, 32768, 65536, 131072)
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
SETTINGS = {
    "compresskv": "heads=all",  # artifacts belong to trained models
    "razorattention": "heads=no",
    "lococo": "mode=hh",
    "fastkv": "tsp_rate=0.5",  # what travels on must fill the budget of the deep layers
}
EVERY_ENTRY = ("gear", "kivi", "minicache")
ALONE = (["kivi"], ["gear"], ["minicache:start=0"], ["zipvl:mode=quant"], [])
"""Measured without a budget; the last is a session without methods. Two layers are one pair of minicache's."""


def bounded() -> list[list[str]]:
    """What is measured with a budget, as specs of one session each; ``{budget}`` stands for it."""
    names = [entry.name for entry in laconic.list_methods() if entry.site == "cache" and entry.name not in EVERY_ENTRY]
    specs = [f"{name}:tokens={{budget}}" + (f",{SETTINGS[name]}" if name in SETTINGS else "") for name in names]
    return [[spec] for spec in specs] + [["snapkv:tokens={budget}", storage] for storage in ("kivi", "gear")]


def title(specs: Sequence[str]) -> str:
    return " + ".join(spec.replace("tokens={budget},", "").replace(":tokens={budget}", "") for spec in specs) or "none"


def chunked(lm: Any, specs: Sequence[str], tokens: int, chunk: int = CHUNK, budget: int = BUDGET) -> Any:
    """-> the cache after a prompt that came in chunks and two new tokens."""
    ids = prompt(tokens)
    new = {"min_new_tokens": 2, "max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}
    with laconic.compress(lm, *(create_method(spec.format(budget=budget)) for spec in specs)) as active:
        lm.generate(ids, attention_mask=torch.ones_like(ids), prefill_chunk_size=chunk, **new)
        return active.cache


def peaks(lm: Any, specs: Sequence[str], marks: Sequence[int]) -> dict[int, Row]:
    """At every mark (tokens seen): the peak since the one before, the last with the decoding behind it, less what the
    process held at the start; and bytes that the cache holds, spare room and columns included."""
    chunked(lm, specs, 640, chunk=320, budget=256)  # loads what a method loads when it first shortens and packs
    gc.collect()
    before = memory("VmRSS")
    found: list[Row] = []

    def read(cache: Any) -> None:
        found.append({"peak": memory("VmHWM") - before, "kept": cache.allocated})
        reset_peak()

    def after(module: Any, inputs: Any, output: Any) -> None:
        if output.past_key_values.get_seq_length() in marks[:-1]:
            read(output.past_key_values)

    reset_peak()
    with lm.register_forward_hook(after):
        read(chunked(lm, specs, marks[-1]))
    return dict(zip(marks, found, strict=True))


def apart(lm: Any, specs: Sequence[str], marks: Sequence[int]) -> dict[int, Row]:
    """`peaks` in a process of its own; raises RuntimeError when that fails."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(into, json.dumps(peaks(lm, specs, marks)).encode())
            code = 0
        finally:
            sys.excepthook(*sys.exc_info()) if code else None  # type: ignore[arg-type]
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as reader:
        text = reader.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("its process ended with an error, which is above")
    return {int(mark): reply for mark, reply in json.loads(text).items()}


def row_of(lm: Any, specs: Sequence[str], lengths: Sequence[int], grows: bool) -> Row:
    """One setting at all lengths: peak and cache in MB, largest / smallest peak, and bytes that one more token costs."""
    found = apart(lm, specs, lengths[:1]) | apart(lm, specs, lengths[1:])
    row: Row = {"section": "long_memory", "method": title(specs), "layers": lm.config.num_hidden_layers, "grows": grows}
    for name in ("peak", "kept"):
        row[f"{name}_mb"] = {str(tokens): round(reply[name] / 1e6, 2) for tokens, reply in found.items()}
    all_peaks = [found[tokens]["peak"] for tokens in lengths]
    row["ratio"] = round(max(all_peaks) / min(all_peaks), 4)
    row["bytes_per_token"] = round((all_peaks[-1] - all_peaks[0]) / (lengths[-1] - lengths[0]), 1)
    say(f"long_memory {row['method']}: peaks {list(row['peak_mb'].values())} MB, ratio {row['ratio']}")
    return row


def targets(rows: Sequence[Row]) -> list[Row]:
    """Flat within 10 %, for what has a budget."""
    lines = []
    for row in rows:
        first, *_, last = (int(tokens) // 1024 for tokens in row["peak_mb"])
        text = f"{row['method']}, {BUDGET} entries, {CHUNK} a chunk: largest / smallest peak, {first}k to {last}k tokens"
        if not row["grows"]:
            lines.append(target("long_memory", row["ratio"], 1.1, True, text))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8k and 16k only")
    parser.add_argument("--longest", type=int, choices=LENGTHS[1:], default=LENGTHS[-1])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=[], help="rows by their titles, such as snapkv or 'snapkv + kivi'")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"})
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # before the first fork: a pool of threads would not survive it
    lm = model(layers=arguments.layers)
    path = RESULTS / "long_memory.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in known if row.get("kind") != "target" and row["layers"] == arguments.layers]
    failed = 0
    longest = 16384 if arguments.quick else arguments.longest
    for specs, grows in [*((specs, False) for specs in bounded()), *((specs, True) for specs in ALONE)]:
        name, lengths = title(specs), [n for n in LENGTHS if n <= (min(longest, 32768) if grows else longest)]
        done = next((row for row in rows if row["method"] == name), None)
        if (arguments.methods and name not in arguments.methods) or (done and str(lengths[-1]) in done["peak_mb"]):
            continue
        try:
            row = row_of(lm, specs, lengths, grows)
        except RuntimeError as error:
            say(f"long_memory {name} FAILED: {error}")
            failed += 1
            continue
        rows = [row if old is done else old for old in rows] if done else [*rows, row]
        save("long_memory", [*rows, *targets(rows)], quick=arguments.quick, budget=BUDGET, chunk=CHUNK)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
