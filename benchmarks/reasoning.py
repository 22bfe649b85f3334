"""Methods that shorten thinking, on a model that thinks: right answers beside steps of thinking, in words and without.

    python benchmarks/reasoning.py --model testbed/reasoner --out benchmarks/results/reasoning.json
    python benchmarks/reasoning.py --model testbed/reasoner --methods no_thought truncate_thought:cap=16 --samples 100

Every row is one method on one task, problems from number 1,000,000 on, greedy decoding. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import laconic
from laconic.bench.statistics import wilson
from laconic.engine.engine import Engine, Request
from laconic.engine.solving import Solved, solve
from laconic.errors import LaconicError
from laconic.specs import create_methods
from laconic.tasks import find_task
from laconic.tasks.reasoning.task import REASONING_TASKS

METHODS = ("none", "no_thought", *(f"truncate_thought:cap={cap}" for cap in (8, 16, 32, 48)))
"""Compared unless others are named; "none" is the model as it is."""


def row(task: str, method: str, found: list[Solved]) -> dict[str, Any]:
    """One line of the table: the share of right answers with its interval, and means over the problems."""
    right = wilson(sum(x.right for x in found), len(found))
    return {
        "task": task,
        "method": method,
        "right": right.mean,
        "low": right.low,
        "high": right.high,
        "n": len(found),
        "latent": mean(x.thinking.latent for x in found),
        "written": mean(x.thinking.written for x in found),
        "answer": mean(x.thinking.answer for x in found),
        "closed": mean(x.thinking.closed for x in found),
        "by_steps": {str(n): mean(x.right for x in found if x.steps == n) for n in sorted({x.steps for x in found})},
    }


def main() -> None:
    """Command line; rows that are in --out already are not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder, or a shipped name")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--tasks", nargs="+", default=[task.name for task in REASONING_TASKS])
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of methods that draw")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine(*laconic.load(args.model))
    rows = json.loads(args.out.read_text()) if args.out is not None and args.out.exists() else []
    known = {(one["task"], one["method"]) for one in rows}
    for name in args.tasks:
        task = find_task(name)
        for spec in args.methods:
            if (name, spec) in known:
                continue
            request = Request(methods=create_methods([] if spec == "none" else [spec]), seed=args.seed)
            try:
                one = row(name, spec, solve(engine, task, task.numbers(0, args.samples), request, args.batch))
            except LaconicError as error:
                one = {"task": name, "method": spec, "refused": str(error)}
            rows.append(one)
            print(json.dumps(one), flush=True)
            if args.out is not None:
                args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
