"""Fewer and smaller weights: right answers, perplexity, bytes, seconds; alone, and beside methods for the cache.

    python benchmarks/weights.py --out benchmarks/results/weights.json [--artifacts FOLDER] [METHOD ...]
    python benchmarks/weights.py --model testbed/lm --task multikey --out benchmarks/results/weights.json

Every METHOD edits smollm2 (or --model) in place, on windows of the training part of Python's documentation where it needs a
text; FOLDER holds NAME.safetensors for those that have to be trained. Then the model reads held-out documents of --tokens
tokens: the perplexity of their last 96 tokens, and the share of questions of --task about needles in them whose whole answer
is the most likely one. Methods for the cache cut the context, before the question is known, to --keep of its entries. With
--timed every row has the median seconds of one document with its questions; only an idle machine makes them evidence. Rows
that are in the file already are not measured again, and a method that does not fit the model says why.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

import laconic
from laconic.baking import fitted
from laconic.bench.statistics import wilson
from laconic.engine.examination import forced
from laconic.engine.generation import read_context
from laconic.engine.scoring import score
from laconic.errors import LaconicError
from laconic.prompts.text import build
from laconic.tasks import Sample, find_task
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text.documents import SOURCE
from laconic.weights.edit import WeightEdit
from laconic.weights.quantiser import WeightQuantiser
from laconic.weights.restored import restored

METHODS = (
    "dense", "rtn:bits=8", "rtn:bits=4", "gptq:bits=4", "magnitude:keep=0.5", "wanda:keep=0.5", "sparsegpt:keep=0.5",
    "magnitude:pattern=2:4", "wanda:pattern=2:4", "sparsegpt:pattern=2:4", "layer_drop:keep=0.75", "vtrans", "slimmoe",
    "reap:keep=0.5",
)  # fmt: skip
CROSSED = ("dense", "gptq:bits=4", "sparsegpt:keep=0.5")
CACHE = ("snapkv", "expected_attention")


class Questions:
    """Held-out documents: continuations to score, and needles to be asked for.

    Args:
        task: of the questions, by name. `timed`: whether rows say how long a document with its questions takes.
    """

    def __init__(self, model: Any, tokenizer: Any, task: str, tokens: int, samples: int, timed: bool):
        self.model, self.tokenizer, self.timed = model, tokenizer, timed
        numbers = range(EVALUATION_SEED, EVALUATION_SEED + samples)
        asked, goes_on = (find_task(name).opened(tokens=tokens, tokenizer=tokenizer) for name in (task, "continuation"))
        self.asked, self.texts = [asked.sample(i) for i in numbers], [goes_on.sample(i) for i in numbers]

    @torch.inference_mode()
    def row(self, method: str | None, keep: float) -> dict[str, Any]:
        """Perplexity, right answers and seconds of the model as it now is."""
        right, seconds = [], []
        for sample in self.asked:
            began = time.perf_counter()
            right += self._right(sample, method, keep)
            seconds.append(time.perf_counter() - began)
        nll = [self._nll(sample, method, keep) for sample in self.texts]
        found = wilson(sum(right), len(right))
        answers = {"right": found.mean, "low": found.low, "high": found.high, "questions": len(right)}
        return {
            "perplexity": math.exp(sum(nll) / len(nll)),
            **answers,
            "seconds": median(seconds) if self.timed else None,
        }

    def _session(self, method: str | None, keep: float) -> laconic.Session:
        return laconic.compress(self.model, *([laconic.create_method(method, keep=keep)] if method else []))

    def _right(self, sample: Sample, method: str | None, keep: float) -> list[bool]:
        prompts = [build(self.tokenizer, sample.context, t.question, answer_prefix=t.prefix) for t in sample.turns]
        golds = [self._ids(turn.gold.removeprefix(turn.prefix)) for turn in sample.turns]
        with self._session(method, keep) as session:
            read_context(session, prompts[0].context)
            said = forced(session, [prompt.question for prompt in prompts], golds)
        return [tokens == gold for tokens, gold in zip(said, golds, strict=True)]

    def _nll(self, sample: Sample, method: str | None, keep: float) -> float:
        with self._session(method, keep) as session:
            (found,) = score(session, self._ids(sample.context), [self._ids(sample.turns[0].gold)])
        return -float(found.log_likelihoods.mean())

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)  # type: ignore[no-any-return]


def edited(model: Any, tokenizer: Any, spec: str, artifacts: Path, windows: int) -> dict[str, Any]:
    """Edit `model` in place -> what was achieved, and the bytes that `laconic bake` would store."""
    size = sum(p.nbytes for p in model.parameters())
    if spec == "dense":
        return {"bytes": size}
    method = laconic.create_method(spec)
    assert isinstance(method, WeightEdit)
    own = artifacts / f"{method.name}.safetensors"
    if own.exists():
        method = laconic.create_method(f"{spec}{',' if ':' in spec else ':'}artifact={own}")
        assert isinstance(method, WeightEdit)
    calibrated = "artifact" in method.parameters() and not own.exists() and method.name not in ("layer_drop",)
    fitted(method, model, tokenizer, {"windows": str(windows)} if calibrated else {})
    with torch.no_grad():
        method.prepare(model)
        facts = method.edit(model)
    size = sum(p.nbytes for p in model.parameters())
    if isinstance(method, WeightQuantiser):
        maps = sum(model.get_submodule(name).weight.nbytes for name in method.packed)
        size += sum(packed.nbytes for packed in method.packed.values()) - maps
    return {**facts, "bytes": size}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--task", default="facts", help="of the questions: facts for real models, multikey for testbed/lm")
    parser.add_argument("--artifacts", type=Path, default=Path("runs"))
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--timed", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = laconic.load(args.model)
    questions = Questions(model, tokenizer, args.task, args.tokens, args.samples, args.timed)
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    done = {(row["model"], row["weights"], row["cache"]) for row in rows}
    for spec in args.methods:
        caches = (None, *(CACHE if spec in CROSSED else ()))
        wanted = [cache for cache in caches if (args.model, spec, cache) not in done]
        if not wanted:
            continue
        told = {"model": args.model, "weights": spec, "task": args.task, "tokens": args.tokens, "data": SOURCE}
        with restored(model):
            try:
                facts = edited(model, tokenizer, spec, args.artifacts, args.windows)
            except LaconicError as error:
                rows.append({**told, "cache": None, "refused": str(error)})
                wanted = []
            for cache in wanted:
                kept = {"cache": cache, "keep": args.keep if cache else 1.0}
                rows.append({**told, **kept, **facts, **questions.row(cache, args.keep)})
                print(json.dumps(rows[-1]), flush=True)
                args.out.write_text(json.dumps(rows, indent=1) + "\n")
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
