"""Learned memories on ``testbed/facts`` beside methods for the cache at equal budgets: right answers and FLOPs.

    python benchmarks/memories.py --artifacts runs --samples 200 --out benchmarks/results/memories.json

Each FOLDER/artifact.safetensors below ``--artifacts`` gives rows at the shares it was trained for. Every row answers the
first question about the same contexts, which are compressed, in one batch, before it is known. Learned memories are asked a
second time, each context's questions of the next one's memory ("swapped"): what is right then did not come from a memory.
FLOPs are those of reading a context and its question, the compressor's included, by formula, as a share of those without.
"""

from __future__ import annotations

import argparse
import json
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import laconic
from laconic.artifact import Artifact
from laconic.bench.statistics import wilson
from laconic.measure.cost import Shape
from laconic.memory.compressor import embedded, slots_of
from laconic.memory.contract import MemoryMethod, PrefixMethod
from laconic.method import Method
from laconic.prompts.text import build
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text.slots import FRAME, Slots

CACHE = ("truncate", "random", "snapkv:window=4", "expected_attention", "kvzip", "attention_matching")


def methods(artifacts: Path, keep: float, share: float) -> dict[str, Method | None]:
    """Name, or folder of its artifact -> method at one budget; None: the uncompressed model.

    Args:
        share: of all entries, what opens the prompt included, that a memory of this `keep` takes; so much have methods for
            the cache, too.
    """
    found: dict[str, Method | None] = {"full": None, "none": None}
    found |= {name: laconic.create_method(name, keep=share) for name in CACHE}
    for path in sorted(artifacts.glob("*/artifact.safetensors")):
        own = Artifact.load(path)
        if keep in own.data.get("keeps", []):
            found[path.parent.name] = laconic.create_method(f"{own.method}:artifact={path}", keep=keep)
    return found


class Asked:
    """The contexts and first questions of some samples of one length, as ids [B, n], and the right answers [B]."""

    def __init__(self, tokenizer: Any, facts: int, samples: int):
        task = Slots(tokens=facts + FRAME, tokenizer=tokenizer)
        drawn = [task.sample(EVALUATION_SEED + i) for i in range(samples)]
        prompts = [build(tokenizer, sample.context, sample.question) for sample in drawn]
        self.opening = prompts[0].opening
        self.context = torch.tensor([prompt.context for prompt in prompts])
        self.question = torch.tensor([prompt.question for prompt in prompts])
        self.right = torch.tensor(tokenizer.convert_tokens_to_ids([sample.turns[0].gold for sample in drawn]))

    def swapped(self) -> Asked:
        """The same questions after the contexts of others."""
        found = copy(self)
        found.context = self.context.roll(1, 0)
        return found


@dataclass(frozen=True)
class Answers:
    """Attributes: tokens: that follow the questions [B]. flops: as a share of those without compression. kv_bytes: of one
    context in the cache, with what opens its prompt."""

    tokens: Tensor
    flops: float
    kv_bytes: float


@torch.no_grad()
def answers(model: Any, asked: Asked, method: Method | None, empty: bool) -> Answers:
    """What the model says to all questions; `empty`: without any context."""
    shape = Shape.of(model, model.model)
    n, m, layers = asked.context.shape[1], asked.question.shape[1], shape.layers
    full = shape.prefill_flops([n + m] * layers)
    an_entry = 2 * layers * model.config.num_key_value_heads * shape.head_dim * model.dtype.itemsize
    if isinstance(method, PrefixMethod):
        method.attach(model)
        opening, rows = asked.context[0, : asked.opening], len(asked.context)
        prefix = method.network(model, opening, asked.context[:, asked.opening :], method.keep)
        at = prefix.after(m).expand(rows, -1)
        logits = model(asked.question, past_key_values=prefix.cache(model.dtype), position_ids=at).logits
        seeing = 4 * shape.head_dim * shape.heads * m * prefix.entries * layers  # the question, of the entries before it
        own = shape.prefill_flops([m] * layers) + seeing + method.flops(shape, n - asked.opening, asked.opening)
        return Answers(logits[:, -1].argmax(-1), own / full, prefix.entries * an_entry)
    if isinstance(method, MemoryMethod):
        method.attach(model)
        assert method.network is not None and method.keep is not None
        soft = method.network.contexts(model, asked.context[:, asked.opening :], method.keep)
        parts = [embedded(model, asked.context[:, : asked.opening]), soft, embedded(model, asked.question)]
        mixed = torch.cat(parts, 1).to(model.dtype)
        own = shape.prefill_flops([mixed.shape[1]] * layers) + method.flops(shape, n - asked.opening)
        said = model(inputs_embeds=mixed).logits[:, -1].argmax(-1)
        return Answers(said, own / full, (mixed.shape[1] - m) * an_entry)
    context = asked.context[:, : asked.opening] if empty else asked.context
    with laconic.compress(model, *filter(None, [method])) as session:
        model(context)
        held = session.stats.kv_bytes / len(context)
        with session.hold():
            logits = model(asked.question, past_key_values=session.cache).logits
    return Answers(logits[:, -1].argmax(-1), session.stats.prefill_flops / len(context) / full, held)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=Path("runs"))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--facts", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.5, 0.25])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = laconic.load("testbed/facts")
    rows = []
    for facts in args.facts:
        asked = Asked(tokenizer, facts, args.samples)
        for keep in args.keeps:
            n = asked.context.shape[1]
            share = (asked.opening + slots_of(n - asked.opening, keep)) / n
            for name, method in methods(args.artifacts, keep, share).items():
                row: dict[str, Any] = {"facts": facts, "keep": keep, "method": name}
                try:
                    said = answers(model, asked, method, name == "none")
                    found = wilson(int((said.tokens == asked.right).sum()), len(asked.right))
                    row |= {"right": found.mean, "low": found.low, "high": found.high, "n": len(asked.right)}
                    row |= {"flops": said.flops, "kv_bytes": said.kv_bytes}
                    if isinstance(method, MemoryMethod):
                        others = answers(model, asked.swapped(), method, False)
                        row["swapped"] = float((others.tokens == asked.right).float().mean())
                except laconic.BudgetError as error:
                    row["refused"] = str(error)
                rows.append(row)
                print(json.dumps(row), flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
