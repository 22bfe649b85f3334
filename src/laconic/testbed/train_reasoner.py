"""Trains a small model that thinks on one CPU thread, and prints how often it solves problems with and without thinking.

    python -m laconic.testbed.train_reasoner --out runs/reasoner
    python -m laconic.testbed.train_reasoner --out runs/reasoner --resume    # continue from the last checkpoint
    python -m laconic.testbed.train_reasoner --evaluate runs/reasoner

Every step has problems of 2 to 8 steps with terse or verbose chains, or none where the question asks for the answer at
once. The loss is taken on chains, answers and ends. Other rows are drills: steps of arithmetic one after another, with the
loss on their results. Chains fail where one step is wrong, mostly a product, and a drill shows many of them in few tokens.

A model that also knows facts by heart (`laconic.tasks.reasoning.recall`) begins with one that thinks:

    python -m laconic.testbed.train_reasoner --out runs/knowing --start testbed/reasoner --facts 512 --recalled 128
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

from laconic.engine.engine import Engine, Request
from laconic.engine.solving import solve
from laconic.fit.chains import IGNORED, Solution, Solutions, padded, recalled
from laconic.fit.checkpoint import load_state, save_state
from laconic.fit.schedules import warmup_cosine
from laconic.shipped import MODELS, model_path
from laconic.specs import create_methods
from laconic.tasks.reasoning.problems import KINDS, STEPS, fact
from laconic.tasks.reasoning.recall import Recall
from laconic.tasks.reasoning.task import REASONING_TASKS
from laconic.testbed.optimizers import build_optimizers
from laconic.testbed.reasoner_model import build_model, build_tokenizer

DIRECT = 0.06
"""Share of the problems that ask for the answer at once."""
DRILLED = 12
"""Facts of a drill."""
POOL = 8
"""Batches that are drawn together and cut by length, so that little is padding."""
SAVE_SECONDS = 120
GATE = 0.95


def batch_of(solutions: Solutions, seed: int, step: int, rows: int) -> list[Solution]:
    """The problems of one step; equal seeds and steps give equal ones."""
    drawn = solutions.draw(random.Random(f"reasoner-{seed}-{step // POOL}"), POOL * rows)
    drawn.sort(key=lambda x: len(x.prompt) + len(x.thought))
    order = random.Random(f"order-{seed}-{step // POOL}").sample(range(POOL), POOL)
    at = order[step % POOL] * rows
    return drawn[at : at + rows]


def drills(tokenizer: Any, rng: random.Random, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Token ids and labels of rows of facts; the labels are those of the results and of the sign after each."""
    written = ["".join(f"{fact(rng, '+-**')};" for _ in range(DRILLED)) for _ in range(rows)]
    equals, over = tokenizer.convert_tokens_to_ids(["=", ";"])
    found = []
    for ids in map(torch.tensor, tokenizer(written, add_special_tokens=False)["input_ids"]):
        result = (ids == equals).cumsum(0) > (ids == over).cumsum(0)
        found.append((ids, torch.where(torch.cat([torch.tensor([False]), result[:-1]]), ids, IGNORED)))
    return found


def styles(verbose: float) -> dict[str, float]:
    """Shares of the chains of thought, `verbose` ones among them."""
    return {"terse": 1 - DIRECT - verbose, "verbose": verbose, "direct": DIRECT}


def mixed(
    solutions: Solutions, seed: int, step: int, steps: int, rows: int, share: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Token ids and labels of one step, [rows, T] each, padded on the right: problems, and drills.

    Args:
        share: of the rows that are drills, in the first step and in the last one.
    """
    drilled = round(rows * (share[0] + (share[1] - share[0]) * step / steps))
    tokenizer, rng = solutions.tokenizer, random.Random(f"drill-{seed}-{step}")
    ids, labels = padded(batch_of(solutions, seed, step, rows - drilled), tokenizer.pad_token_id)
    more = drills(tokenizer, rng, drilled)
    ids = pad_sequence([*ids, *(x for x, _ in more)], batch_first=True, padding_value=tokenizer.pad_token_id)
    return ids, pad_sequence([*labels, *(x for _, x in more)], batch_first=True, padding_value=IGNORED)


def loss_of(model: Any, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of one batch of rows, and which of the labelled tokens were the most likely ones."""
    wanted = labels[:, 1:] != IGNORED
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    logits, targets = model.lm_head(hidden[wanted]), labels[:, 1:][wanted]
    return cross_entropy(logits, targets), (logits.argmax(-1) == targets).float()


def train(args: argparse.Namespace) -> None:
    """Train from scratch, or go on, and write model and tokenizer into `args.out`."""
    out, steps, seed = args.out, args.steps, args.seed
    tokenizer = build_tokenizer()
    solutions = Solutions(tokenizer, styles(args.verbose), range(args.least, STEPS.stop), args.kinds)
    torch.manual_seed(seed)
    model = build_model(tokenizer)
    matrices = [p for layer in model.model.layers for p in layer.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    optimizers = build_optimizers(matrices, others, args.muon_lr, args.lr, exact=True)
    out.mkdir(parents=True, exist_ok=True)
    done, start = 0, out if args.resume else args.start
    if start is not None:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).state_dict())
    if args.resume:
        state = load_state(out, optimizers)
        done, seed = state["done"], state["seed"]
    tokenizer.save_pretrained(out, save_jinja_files=False)
    saved, began = time.monotonic(), time.process_time()
    for step in range(done, steps):
        loss, hits = loss_of(model, *mixed(solutions, seed, step, steps, args.rows, args.drills))
        loss.backward()
        known = ""
        if args.facts:
            facts = recalled(tokenizer, random.Random(f"recall-{seed}-{step}"), args.facts, args.recalled)
            more, own = loss_of(model, *padded(facts, tokenizer.pad_token_id))
            more.backward()
            known = f" facts: loss {more.item():.4f} right {own.mean():.3f}"
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * warmup_cosine(step, steps, 0.03)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 25 == 0:
            spent = time.process_time() - began
            print(f"step {step + 1} loss {loss.item():.4f} right {hits.mean():.3f}{known} {spent:.0f} CPU s", flush=True)
        if time.monotonic() - saved > SAVE_SECONDS or step + 1 in (1, steps):
            model.save_pretrained(out)
            save_state(out, optimizers, {"done": step + 1, "seed": seed})
            saved = time.monotonic()


def evaluate(folder: Path, samples: int, facts: int = 0) -> bool:
    """Print how often problems are solved with chains of thought and without, and how many of the first `facts` facts are
    known; true if the chains pass the gate."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    engine, passed = Engine(model, AutoTokenizer.from_pretrained(folder)), True
    print("| problems | style | right, % | thinking tokens | right without thinking, % |\n|---|---|---|---|---|", flush=True)
    for task in REASONING_TASKS:
        cells = []
        for methods in ([], create_methods(["no_thought"])):
            found = solve(engine, task, task.numbers(0, samples), Request(methods=methods), batch=100)
            cells.append((sum(x.right for x in found) / samples, sum(x.thinking.steps for x in found) / samples))
        (right, tokens), (without, _) = cells
        passed = passed and right >= GATE
        row = f"| {task.kind} | {task.style} | {100 * right:.1f} | {tokens:.1f} | {100 * without:.1f} |"
        print(row, flush=True)
    if facts:
        known = solve(engine, Recall(facts=facts), range(facts), Request(methods=[]), batch=256)
        print(f"known by heart: {sum(x.right for x in known)} of {facts} facts")
    print(f"gate of {GATE:.0%} {'passed' if passed else 'NOT passed'}")
    return passed


def main() -> None:
    """Command line; the exit status is 1 if an evaluation misses the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/reasoner"))
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in --out")
    parser.add_argument("--evaluate", type=Path, metavar="DIR", help="evaluate the model in DIR and do nothing else")
    parser.add_argument("--samples", type=int, default=200, help="problems of every kind and style")
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--rows", type=int, default=32, help="problems and drills in a step")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), help="of the problems; a kind may be named several times")
    parser.add_argument("--least", type=int, default=STEPS.start, help="steps that a problem has at least")
    parser.add_argument("--verbose", type=float, default=0.34, help="share of the problems with verbose chains")
    parser.add_argument("--drills", type=float, nargs=2, default=[0.5, 0.1], help="share of drills at first and at last")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--start", help="a model of this class to begin with: a folder, or a shipped name")
    parser.add_argument("--facts", type=int, default=0, help="facts that are learned by heart beside the problems")
    parser.add_argument("--recalled", type=int, default=128, help="of them, those in a step")
    args = parser.parse_args()
    args.start = model_path(args.start) if args.start in MODELS else args.start
    torch.set_num_threads(1)
    if args.evaluate:
        raise SystemExit(0 if evaluate(args.evaluate, args.samples, args.facts) else 1)
    train(args)


if __name__ == "__main__":
    main()
