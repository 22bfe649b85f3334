"""What the first token of an answer about a document costs: read anew, or taken from a store. SmolLM2-135M-Instruct.

    python benchmarks/stored.py [--rounds 1] [--lengths 2048,4096]

Needs the package of `smollm2` (`laconic.load`). Seconds are of one thread's processor time, from the document as text to the
first token, so that they mean the same on a busy machine. All ways take turns within each round, and ratios are paired. A
store is opened anew each time, so each look-up reads the file and compares its checksum; what a process pays once, hashing
the model's weights, stands apart. Medians are written to results/stored.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable

import torch
from common import alternate, milliseconds, ratio, save, say

import laconic
from laconic.engine.context_key import weights_hash
from laconic.engine.engine import Engine, Request
from laconic.memory.store import SegmentStore
from laconic.tasks import find_task
from laconic.tasks.task import EVALUATION_SEED, Sample

METHODS = ("none", "keydiff:keep=0.25")


def seconds(call: Callable[[], None]) -> float:
    """Processor time of a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def asked(engine: Engine, sample: Sample, method: str, store: SegmentStore | None = None) -> None:
    """Read the context, or take it from `store`, and decode one token of an answer."""
    methods = [] if method == "none" else [method]
    context = laconic.read(engine.model, engine.reader, sample.context, *methods, store=store or False)
    context.ask(sample.question, max_new_tokens=1)


def asked_stock(engine: Engine, sample: Sample) -> None:
    """The whole prompt in one pass of the uncompressed model, in transformers' own cache."""
    engine.answer(Request(context=sample.context, question=sample.question, methods=None, max_new_tokens=1))


def measured(engine: Engine, tokens: int, rounds: int) -> list[dict[str, object]]:
    """A row for each method at one length."""
    sample = find_task("facts").opened(tokens=tokens, tokenizer=engine.tokenizer).sample(EVALUATION_SEED)
    calls = {"stock": lambda: seconds(lambda: asked_stock(engine, sample))}
    entries = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, method in enumerate(METHODS):

            def opened(number: int = number) -> SegmentStore:
                return SegmentStore(folder, namespace=f"method-{number}")

            calls[f"read {method}"] = lambda m=method: seconds(lambda: asked(engine, sample, m))
            calls[f"stored {method}"] = lambda m=method, store=opened: seconds(lambda: asked(engine, sample, m, store()))
            asked(engine, sample, method, opened())  # now it is there
            (entries[method],) = opened().entries()
        times = alternate(calls, rounds, warmup=0)
    medians = milliseconds(times)
    rows = []
    for method, entry in entries.items():
        faster = ratio(times, "stock", f"stored {method}")
        say(f"{tokens} tokens, {method}: {medians[f'stored {method}']:.0f} ms, stock {faster['ratio']:.1f} times that")
        rows.append(
            {
                "tokens": tokens,
                "method": method,
                "context_tokens": entry.facts["tokens"],
                "file_bytes": entry.bytes,
                "stock_ms": medians["stock"],
                "read_ms": medians[f"read {method}"],
                "stored_ms": medians[f"stored {method}"],
                "stock_to_stored": faster,
                "read_to_stored": ratio(times, f"read {method}", f"stored {method}"),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lengths", default="2048,4096")
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine(*laconic.load("smollm2"))
    engine.answer(Request(context="A short text.", question="What?", methods=None, max_new_tokens=2))  # first calls are slow
    once = seconds(lambda: weights_hash(engine.model))
    rows = []
    for tokens in map(int, given.lengths.split(",")):
        rows += measured(engine, tokens, given.rounds)
        save("stored", rows, rounds=given.rounds, clock="processor time", weights_hash_ms=round(once * 1e3, 1))


if __name__ == "__main__":
    main()
