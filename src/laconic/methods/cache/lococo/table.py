"""The table of a LoCoCo artifact's card: chunked loss on held-out text, uncompressed, heavy hitters, learned.

python -m laconic.methods.cache.lococo.table --artifact lococo-testbed-lm
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

import laconic
from laconic.artifact import Artifact
from laconic.fit.text import copies, labelled
from laconic.methods.cache.lococo.fit import Squeeze, chunk_losses, chunks, heavy_hitters, mixing
from laconic.methods.cache.lococo.network import load, slots_of
from laconic.tasks.text import corpus
from laconic.tasks.text.chat import gold_ids, prompt_ids
from laconic.tasks.text.mixture import Example
from laconic.tasks.text.retrieval import EVALUATION_SEED, make

TASKS = ("single", "multikey", "multiquery", "multivalue")


def held_out_prose(tokenizer: Any) -> list[int]:
    """All prose that no training has read, as one list of ids."""
    return [
        i for line in corpus.lines("prose", held_out=True) for i in tokenizer.encode("\n" + line, add_special_tokens=False)
    ]


def texts(tokenizer: Any, tokens: int, count: int) -> dict[str, list[Example]]:
    """`count` examples of each kind from held-out documents: prose, copies of prose, and answers to the testbed's tasks."""
    prose, rng = held_out_prose(tokenizer), random.Random(f"table-{EVALUATION_SEED}")
    found: dict[str, list[Example]] = {"prose": [], "copies": [], "answers": []}
    for i in range(count):
        at = rng.randrange(len(prose) - tokens)
        ids = prose[at : at + tokens]
        found["prose"].append(Example(ids, {j: ((ids[j],), 1.0, 0) for j in range(tokens)}))
        found["copies"].append(copies(rng, prose, tokens))
        found["answers"].append(_answered(tokenizer, TASKS[i % len(TASKS)], EVALUATION_SEED + i, tokens))
    return found


def _answered(tokenizer: Any, task: str, seed: int, tokens: int) -> Example:
    """A task's prompt and its reference answer, which has the loss."""
    sample = make(task, seed, tokens, tokenizer)
    context, question = prompt_ids(sample, tokenizer)
    answer = gold_ids(sample, tokenizer, 0)
    start = len(context) + len(question)
    return Example([*context, *question, *answer], {start + i: ((token,), 1.0, 0) for i, token in enumerate(answer)})


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel, examples: list[Example], tokens: int, chunk: int, most: int, squeeze: Squeeze | None
) -> float:
    """Mean next-token loss of the supervised tokens, four examples at a time."""
    total, count = 0.0, 0
    for start in range(0, len(examples), 4):
        ids, labels = labelled(examples[start : start + 4], tokens)
        for loss, number in chunk_losses(chunks(model, ids, chunk, most, squeeze), labels):
            total, count = total + float(loss), count + number
    return total / count


def table(
    model: PreTrainedModel, tokenizer: Any, artifact: Artifact, tokens: int, count: int, show: Callable[[str], None] = print
) -> dict[str, dict[str, float]]:
    """Print and return the losses of all kinds of text and all ways to remember."""
    settings, memory, layers = artifact.settings, int(artifact.data["memory"]), load(artifact)
    ways = {"full": None, "hh": heavy_hitters(memory), "conv": mixing(layers, memory - slots_of(layers))}
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    show("| text | full | hh | conv |\n|---|---|---|---|")
    losses = {}
    try:
        for kind, examples in texts(tokenizer, tokens, count).items():
            most, chunk = memory + settings["slack"], settings["chunk"]
            row = {way: mean_loss(model, examples, tokens, chunk, most, squeeze) for way, squeeze in ways.items()}
            show(f"| {kind} | " + " | ".join(f"{loss:.3f}" for loss in row.values()) + " |")
            losses[kind] = row
    finally:
        model.set_attn_implementation(before)
    return losses


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed/lm")
    parser.add_argument("--artifact", help="a file, the name of a shipped one, or a Hub id")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--count", type=int, default=48, help="examples of each kind")
    args = parser.parse_args()
    model, tokenizer = laconic.load(args.model)
    table(model, tokenizer, Artifact.find("lococo", model, args.artifact), args.tokens, args.count)


if __name__ == "__main__":
    main()
