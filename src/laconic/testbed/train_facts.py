"""Trains ``testbed/facts`` on one CPU thread, and prints how often it answers rightly.

    python -m laconic.testbed.train_facts --out runs/facts
    python -m laconic.testbed.train_facts --evaluate src/laconic/testbed/facts

Every step has contexts of one length, 8 to 64 facts, with eight questions in turn, or the request to copy all facts. The
loss is taken on the answers and the ends of their turns.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from laconic.fit.schedules import warmup_cosine
from laconic.fit.slots import SlotReadings
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text.slots import FRAME, Slots
from laconic.testbed.evaluate import ask
from laconic.testbed.facts_model import build_model, build_tokenizer
from laconic.testbed.optimizers import build_optimizers

LENGTHS = (8, 12, 16, 16, 24, 32, 48, 64)
"""Facts in a context; every later step draws one."""
EASY = (8,)
"""The first steps have so few facts, until the share `ENOUGH` of the answers is right."""
ENOUGH = 0.9
COPIES = 0.15
"""Share of the steps that ask for all facts."""
GATE = 0.99


def train(out: Path, steps: int, rows: int, seed: int, muon_lr: float, lr: float) -> None:
    """Train from scratch, and write model and tokenizer into `out`."""
    tokenizer = build_tokenizer()
    torch.manual_seed(seed)
    model = build_model(tokenizer)
    matrices = [p for layer in model.model.layers for p in layer.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    optimizers = build_optimizers(matrices, [p for p in model.parameters() if id(p) not in inside], muon_lr, lr)
    readings, began, right, seen = SlotReadings(tokenizer), time.process_time(), 0, 0
    learning = False  # the longer contexts, which come once the short ones are answered
    for step in range(steps):
        rng = random.Random(f"facts-{seed}-{step}")
        facts, copying = rng.choice(LENGTHS if learning else EASY), learning and rng.random() < COPIES
        reading = readings.draw(rng, rows, facts, copying)
        before = torch.cat([reading.opening.expand(rows, -1), reading.context], 1)
        ids = torch.cat([before, reading.rest], 1)
        learned = torch.cat([torch.zeros_like(before, dtype=torch.bool), reading.learned], 1)
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits, wanted = model.lm_head(hidden[learned[:, 1:]]), ids[:, 1:][learned[:, 1:]]
        loss = cross_entropy(logits, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * warmup_cosine(step, steps, 0.03)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        values = wanted != readings.end
        right, seen = right + int((logits.argmax(-1) == wanted)[values].sum()), seen + int(values.sum())
        if (step + 1) % 25 == 0:
            spent, share = time.process_time() - began, right / seen
            print(f"step {step + 1} loss {loss.item():.4f} right {share:.3f} {spent:.0f} CPU s", flush=True)
            right, seen, learning = 0, 0, learning or share > ENOUGH
    model.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)


def evaluate(folder: Path, samples: int) -> bool:
    """Print the share of right answers at several lengths; true if all pass the gate."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    passed = True
    for facts in sorted(set(LENGTHS)):
        task = Slots(tokens=facts + FRAME, tokenizer=tokenizer)
        drawn = [task.sample(EVALUATION_SEED + i) for i in range(samples)]
        scores = [
            task.score(answer, sample, turn)
            for turn in range(len(drawn[0].turns))
            for sample, answer in zip(drawn, ask(model, tokenizer, drawn, turn, prefix=False), strict=True)
        ]
        share = sum(scores) / len(scores)
        passed = passed and share >= GATE
        print(f"{facts} facts: {share:.1%} of {len(scores)} answers right", flush=True)
    print(f"gate of {GATE:.0%} {'passed' if passed else 'NOT passed'}")
    return passed


def main() -> None:
    """Command line; the exit status is 1 if an evaluation misses the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/facts"))
    parser.add_argument("--evaluate", type=Path, metavar="DIR", help="evaluate the model in DIR and do nothing else")
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--rows", type=int, default=32, help="contexts in a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--muon-lr", type=float, default=5e-3)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.evaluate:
        raise SystemExit(0 if evaluate(args.evaluate, args.samples) else 1)
    train(args.out, args.steps, args.rows, args.seed, args.muon_lr, args.lr)


if __name__ == "__main__":
    main()
