"""Do laconic and kvpress 0.5.5 keep the same entries, and are the same questions answered?

    python benchmarks/run_all.py --only agree --peer /path/to/kvpress-env/bin/python

The same methods with the same parameters (`subjects.METHODS`) on the same token ids. First the kept token indices of every
layer and head, on the random benchmark model and on testbed/lm: results/agree_kept.json. Then greedy answers on the testbed
suites, the question in view or later: results/agree_scores.json. Where a known difference explains a disagreement, the
comparison is made again with that difference taken out (`aligned.py`). One thread, nothing is timed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from common import prompt, save, say
from peer_kvpress import Worker
from subjects import METHODS, RAGGED

import laconic
from laconic.bench.statistics import Interval, bootstrap
from laconic.shipped import model_path
from laconic.tasks import Sample, metrics
from laconic.tasks.text.chat import gold_ids, prompt_ids
from laconic.tasks.text.retrieval import EVALUATION_SEED, make

TASKS = ("single", "multikey", "multiquery", "multivalue")
KEEPS, LENGTHS = (0.5, 0.25, 0.1), (512, 2048)
SCORED_KEEPS, SCORED_LENGTH = (0.25, 0.1), 512
MODES = ("aware", "agnostic")
SPARE_TOKENS = 4
ROUNDING = 1e-4
"""Scores this close, in shares of a head's span of scores, may be told apart either way in fp32."""
FORCED = 1e38
"""Ranks from here on are no scores: these entries stay whatever they score."""
ALIGNED = ("snapkv", "adakv", "pyramidkv", "h2o")
"""Methods with a variant in `aligned.py`."""
Row = dict[str, Any]
Kept = list[list[list[int]]]
"""Token indices by layer and head."""


def compare(mine: Kept, theirs: Kept, ranks: list[list[list[float]]], ragged: bool) -> Row:
    """One prompt: agreement per layer and head, and how far apart in score the exchanged entries are.

    share: |A and B| / |A|; nested: |A and B| / the smaller of both (1 when only the counts differ); equal: heads that agree
    fully; gap: highest score among what only laconic keeps less the lowest among what only kvpress keeps, in shares of the
    head's span (of the layer's, where heads compete); None where forced entries are among them.
    """
    share, nested, equal, gaps = [], [], [], [0.0]
    for a_heads, b_heads, scores in zip(mine, theirs, ranks, strict=True):
        pairs = [(set(a), set(b)) for a, b in zip(a_heads, b_heads, strict=True)]
        for a, b in pairs:
            share.append(len(a & b) / len(a))
            nested.append(len(a & b) / min(len(a), len(b)))
            equal.append(float(a == b))
        heads = [([s[i] for i in a - b], [s[i] for i in b - a], s) for (a, b), s in zip(pairs, scores, strict=True)]
        for ours, others, every in [tuple(map(chained, zip(*heads, strict=True)))] if ragged else heads:
            if ours and others:
                free = [x for x in every if abs(x) < FORCED]
                gaps.append((max(ours) - min(others)) / (max(free) - min(free)))
    mean = {name: sum(x) / len(x) for name, x in (("share", share), ("nested", nested), ("equal", equal))}
    return mean | {"gap": max(gaps)}


def chained(lists: Iterable[list[float]]) -> list[float]:
    return list(chain.from_iterable(lists))


def agreement(workers: dict[str, Worker], model: str, prompts: list[list[int]], name: str, keep: float) -> Row:
    """Mean over prompts of `compare`, and the same with the known difference taken out."""
    request = {"do": "kept", "model": model, "prompts": prompts, "method": name, "keep": keep}
    theirs = workers["kvpress"].ask(**request)["kept"]

    def against(aligned: bool) -> Row:
        reply = workers["laconic"].ask(**request, aligned=aligned)
        pairs = zip(reply["kept"], theirs, reply["ranks"], strict=True)
        rows = [compare(a, b, ranks, name in RAGGED) for a, b, ranks in pairs]
        means = {key: round(sum(row[key] for row in rows) / len(rows), 5) for key in ("share", "nested", "equal")}
        gap = max(row["gap"] for row in rows)
        means |= {"gap": gap if gap < FORCED / 1e6 else None, "entries": [layered(reply["kept"][0]), layered(theirs[0])]}
        return means

    found = against(False)
    if found["share"] < 1 and name in ALIGNED:
        found["aligned"] = against(True)
    return found


def layered(kept: Kept) -> list[float]:
    """Mean entries of a head, by layer."""
    return [round(sum(map(len, heads)) / len(heads), 1) for heads in kept]


def same(row: Row) -> bool:
    """Equal, or as many entries exchanged for others of a score that rounding cannot tell apart."""
    tied = row["gap"] is not None and row["gap"] <= ROUNDING and sum(row["entries"][0]) == sum(row["entries"][1])
    return bool(row["share"] == 1 or tied)


def sample_ids(tokenizer: Any, sample: Sample) -> tuple[list[int], list[int], int]:
    """Context, question, and how many tokens an answer may have."""
    return *prompt_ids(sample, tokenizer), len(gold_ids(sample, tokenizer)) + SPARE_TOKENS


def kept_rows(workers: dict[str, Worker], folder: str, tokenizer: Any, lengths: Sequence[int]) -> list[Row]:
    rows = []
    for tokens in lengths:
        found = [sample_ids(tokenizer, make(task, EVALUATION_SEED, tokens, tokenizer)) for task in TASKS]
        subjects = {
            "random": ("random", [prompt(tokens)[0].tolist()]),
            "testbed/lm": (folder, [context + question for context, question, _ in found]),
        }
        for label, (model, prompts) in subjects.items():
            for name in METHODS:
                for keep in KEEPS:
                    row: Row = {"model": label, "tokens": tokens, "method": name, "keep": keep, "prompts": len(prompts)}
                    row |= agreement(workers, model, prompts, name, keep)
                    row["explained"] = same(row) or same(row.get("aligned", row))
                    rows.append(row)
                    shown = {k: row[k] for k in ("share", "nested", "equal", "gap")}
                    say(f"{label} {tokens} {name} {keep}: {shown} {row.get('aligned', '')}")
                    if not row["explained"]:
                        say("    NOT EXPLAINED")
    return rows


def one_apart(tokens: int, keep: float) -> bool:
    """Whether kvpress, which computes a budget from the share removed, keeps one entry fewer of so many tokens."""
    return int(tokens * keep + 1e-6) != int(tokens * (1 - (1 - keep)))


def interval(found: Interval) -> list[float]:
    return [round(found.mean, 4), round(found.low, 4), round(found.high, 4)]


def score_rows(workers: dict[str, Worker], folder: str, tokenizer: Any, samples: int) -> list[Row]:
    """Recall of both, the paired difference with its 95 % interval, and how many answers are the same tokens: of all, and of
    those whose budgets are the same number."""
    made = {t: [make(t, EVALUATION_SEED + i, SCORED_LENGTH, tokenizer) for i in range(samples)] for t in TASKS}
    prompts = {task: [sample_ids(tokenizer, sample) for sample in made[task]] for task in TASKS}
    rows = []
    for mode in MODES:
        for name, keep in [("none", 1.0), *((n, k) for n in METHODS for k in SCORED_KEEPS)]:
            recall: dict[str, list[list[float]]] = {"laconic": [], "kvpress": []}
            alike, even = [], []
            for task in TASKS:
                given = {}
                for who, worker in workers.items():
                    request = {"model": folder, "mode": mode, "method": name, "keep": keep, "prompts": prompts[task]}
                    given[who] = worker.ask(do="ask", **request)["answers"]
                    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in given[who]]
                    asked = [sample.turns[0].answers for sample in made[task]]
                    recall[who].append([metrics.string_match_all(*pair) for pair in zip(texts, asked, strict=True)])
                alike += [a == b for a, b in zip(given["laconic"], given["kvpress"], strict=True)]
                read = [len(context) + len(question) * (mode == "aware") for context, question, _ in prompts[task]]
                even += [not one_apart(tokens, keep) for tokens in read]
            pairs = zip(recall["laconic"], recall["kvpress"], strict=True)
            difference = [[x - y for x, y in zip(a, b, strict=True)] for a, b in pairs]
            row: Row = {"mode": mode, "method": name, "keep": keep, "tokens": SCORED_LENGTH, "samples": len(alike)}
            row |= {who: interval(bootstrap(groups)) for who, groups in recall.items()}
            row |= {"difference": interval(bootstrap(difference)), "same_answers": sum(alike), "even": sum(even)}
            row["same_answers_even"] = sum(a and e for a, e in zip(alike, even, strict=True))
            row["tasks"] = {who: {t: sum(x) / len(x) for t, x in zip(TASKS, g, strict=True)} for who, g in recall.items()}
            rows.append(row)
            say(f"{mode} {name} {keep}: {row['laconic']} {row['kvpress']} {row['difference']} {row['same_answers']}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-kvpress/bin/python", help="python of an environment with kvpress 0.5.5")
    parser.add_argument("--quick", action="store_true", help="512 tokens and 4 samples a task")
    parser.add_argument("--only", nargs="*", default=["kept", "scores"], help="kept, scores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, tokenizer = laconic.load("testbed/lm", device="cpu")
    folder = str(model_path("testbed/lm"))
    workers = {
        "laconic": Worker(sys.executable, "worker_laconic.py"),
        "kvpress": Worker(arguments.peer, "worker_kvpress.py"),
    }
    try:
        more = {"peer": workers["kvpress"].ask(do="versions"), "quick": arguments.quick, "parameters": METHODS}
        if "kept" in arguments.only:
            lengths = LENGTHS[:1] if arguments.quick else LENGTHS
            save("agree_kept", kept_rows(workers, folder, tokenizer, lengths), **more)
        if "scores" in arguments.only:
            save("agree_scores", score_rows(workers, folder, tokenizer, 4 if arguments.quick else 20), **more)
    finally:
        for worker in workers.values():
            worker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
