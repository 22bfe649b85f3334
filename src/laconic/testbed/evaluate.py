"""The table of a testbed language model: uncompressed accuracy per task and length under greedy generation.

python -m laconic.testbed.evaluate testbed/lm --samples 200
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from laconic.engine.engine import Engine, Request
from laconic.shipped import MODELS, model_path
from laconic.tasks import Sample
from laconic.tasks.text.chat import prompt_ids
from laconic.tasks.text.retrieval import EVALUATION_SEED, TASKS, Retrieval

LENGTHS = (512, 1024, 2048)
GATE = 0.95
SOLVED = ("single", "multikey", "multiquery", "multivalue", "kvturns", "laterneedle")
"""Tasks that the uncompressed ``testbed/lm`` solves to 95 % at 512, 1,024 and 2,048 tokens: the ones to compare methods on.
``vartrack`` misses the gate by a point at 1,024 and 2,048 (see the model card)."""
BELOW_GATE: frozenset[tuple[str, int]] = frozenset({("vartrack", 1024), ("vartrack", 2048)})
"""Where ``testbed/lm`` itself stays below the gate (94.3 % each)."""


def generate(model: Any, tokenizer: Any, prompts: list[list[int]], new_tokens: int) -> list[str]:
    """Greedy continuations of `prompts` (token ids), generated as one left-padded batch, without special tokens."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    request = Request(methods=None, max_new_tokens=new_tokens)
    answers = Engine(model, tokenizer).answer_batch({"input_ids": ids, "attention_mask": mask}, request)
    return [answer.text for answer in answers]


def ask(model: Any, tokenizer: Any, samples: list[Sample], turn: int, prefix: bool) -> list[str]:
    """Answers of the model to question `turn` of every sample; earlier turns have their gold answers."""
    prompts = [[i for part in prompt_ids(sample, tokenizer, turn, prefix) for i in part] for sample in samples]
    wanted = [sample.turns[turn] for sample in samples]
    longest = max(len(tokenizer.encode(t.gold.removeprefix(t.prefix) if prefix else t.gold)) for t in wanted)
    return generate(model, tokenizer, prompts, longest + 2)


def cell(
    model: Any,
    tokenizer: Any,
    task: str,
    tokens: int,
    samples: int,
    prefix: bool = True,
    seed: int = EVALUATION_SEED,
) -> tuple[float, float]:
    """Mean recall and mean whole-answer accuracy of `task` at `tokens` over `samples` seeds from `seed` on."""
    source = Retrieval(task, tokens, tokenizer)
    recall, right, asked = 0.0, 0.0, 0
    batch = max(1, 16384 // tokens)
    for start in range(0, samples, batch):
        chunk = [source.sample(seed + i) for i in range(start, min(start + batch, samples))]
        for turn in range(len(chunk[0].turns)):
            for sample, output in zip(chunk, ask(model, tokenizer, chunk, turn, prefix), strict=True):
                shown = output if prefix else output.removeprefix(sample.turns[turn].prefix)
                recall += source.score(shown, sample, turn)
                right += source.exact(shown, sample, turn)
                asked += 1
    return recall / asked, right / asked


def table(model: Any, tokenizer: Any, samples: int, lengths: tuple[int, ...] = LENGTHS, prefix: bool = True) -> bool:
    """Print recall and whole-answer accuracy of every task and length; true if all recalls pass the gate."""
    print("| task | " + " | ".join(f"{n:,}" for n in lengths) + " |\n|---|" + "---|" * len(lengths), flush=True)
    passed = True
    for task in TASKS:
        cells = [cell(model, tokenizer, task, n, samples, prefix) for n in lengths]
        passed = passed and min(recall for recall, _ in cells) >= GATE
        print(f"| {task} | " + " | ".join(f"{100 * r:.1f} / {100 * w:.1f}" for r, w in cells) + " |", flush=True)
    return passed


def report(
    folder: Path,
    samples: int = 200,
    lengths: tuple[int, ...] = LENGTHS,
    prefix: bool = True,
    dtype: str = "auto",
    device: str = "cpu",
) -> bool:
    """Load the model in `folder` and print its table; true if it passes the gate."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
    began = time.time()
    print(f"recall / whole answers in percent, {samples} samples a cell, prefix: {prefix}")
    passed = table(model, tokenizer, samples, lengths, prefix)
    print(f"gate of {GATE:.0%} recall {'passed' if passed else 'NOT passed'}; {time.time() - began:.0f} s")
    return passed


def main() -> None:
    """Command line; the exit status is 1 if a cell misses the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="testbed/lm or a folder")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--no-prefix", action="store_true", help="the model must open the answer itself")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    folder = model_path(args.model) if args.model in MODELS else Path(args.model)
    passed = report(folder, args.samples, tuple(args.lengths), not args.no_prefix, args.dtype, args.device)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
