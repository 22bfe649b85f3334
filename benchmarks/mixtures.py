"""A mixture of experts with fewer or narrower experts: how near its languages' entropy it stays, and needles found.

    python -m laconic.testbed.train_moe --write languages.txt
    laconic fit slimmoe --model testbed/moe --set text=languages.txt --set neurons=96 --out runs/slimmoe
    laconic fit reap --model testbed/moe --set text=languages.txt --out runs/reap
    python benchmarks/mixtures.py --out mixtures.json slimmoe:artifact=runs/slimmoe reap:keep=0.25,artifact=runs/reap

Every METHOD edits ``testbed/moe`` in place. "entropy" is the surprise of unseen texts over that under the table that wrote
them; needles are asked for in contexts of 256 tokens, in pieces of one text that the training has not drawn. Rows that are
in the file already are not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import laconic
from laconic.bench.statistics import wilson
from laconic.specs import create_methods
from laconic.tasks.text.languages import TAGS
from laconic.testbed.train_moe import LENGTHS, needle_scores, read
from laconic.weights.edit import WeightEdit
from laconic.weights.restored import restored


def row(model: Any, tokenizer: Any, samples: int) -> dict[str, Any]:
    """What the model as it now is knows of languages and needles."""
    pairs = [read(model, tokenizer, language, samples) for language in range(len(TAGS))]
    found, known = (sum(column) for column in zip(*pairs, strict=True))
    right = needle_scores(model, tokenizer, LENGTHS[-1], samples)
    share = wilson(round(sum(right)), len(right))
    parameters = sum(p.numel() for p in model.parameters())
    answers = {"right": share.mean, "low": share.low, "high": share.high, "questions": len(right)}
    return {"parameters": parameters, "entropy": found / known, **answers}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--model", default="testbed/moe")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--names", nargs="*", default=[], help="of the methods in the table, where a spec names files")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = laconic.load(args.model)
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    names = args.names or args.methods
    for spec, name in zip([None, *args.methods], ["the model", *names], strict=True):
        if any(one["method"] == name for one in rows):
            continue
        with restored(model):
            if spec is not None:
                (method,) = create_methods([spec])
                assert isinstance(method, WeightEdit)
                with torch.no_grad():
                    method.prepare(model)
                    method.edit(model)
            rows.append({"method": name, **row(model, tokenizer, args.samples)})
        print(json.dumps(rows[-1]), flush=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
