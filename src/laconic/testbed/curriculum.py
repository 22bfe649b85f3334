"""What the training of ``testbed/lm`` sees at which step: the stages and the mixture inside each stage."""

import argparse
import random
from typing import Any

from laconic.tasks.text.mixture import Example, Mixture
from laconic.testbed.tokenizer import SPECIALS, VOCAB_SIZE

INDUCTION_IDS = VOCAB_SIZE - len(SPECIALS)
# (kind, tokens, alphabet of an induction stage, accuracy to pass). The last stage lasts until the training ends.
STAGES = [
    ("induction", 64, 256, 0.85),
    ("induction", 64, INDUCTION_IDS, 0.85),
    ("induction", 128, INDUCTION_IDS, 0.85),
    ("relation", 64, 0, 0.9),
    ("relation", 256, 0, 0.9),
    ("task", 128, 0, 0.93),
    ("task", 256, 0, 0.93),
    ("task", 512, 0, 0.93),
    ("task", 1024, 0, 0.93),
    ("task", 2048, 0, 2.0),
]
# Shares of the lengths so far in the steps that --shorter takes from the newest length.
LENGTH_WEIGHTS = {128: 1, 256: 1, 512: 3, 1024: 4, 2048: 9}
LONGEST_BASIC = 256


def draw(mixture: Mixture, args: argparse.Namespace, state: dict[str, Any], rank: int) -> tuple[str, int, list[Example]]:
    """One worker's examples of the step ``state["step"]``: (label for the log, padded length, examples).

    Label and length are the same for all workers, so that their steps take the same time. Moves
    ``state["next_seed"]`` on, so no chat is seen twice.
    """
    shared = random.Random(f"step-{args.seed}-{state['step']}")
    own = random.Random(f"step-{args.seed}-{state['step']}-{rank}")
    kind, tokens, alphabet, _ = STAGES[state["stage"]]
    share, batch = shared.random(), args.tokens // args.workers
    if share < args.prose:
        tokens = max(128, min(tokens, shared.choice([128, 512, tokens])))
        return "prose", tokens, [mixture.plain_prose(own, tokens) for _ in range(batch // tokens)]
    share -= args.prose
    if kind == "induction" or share < args.induction:
        if kind != "induction":
            tokens, alphabet = min(tokens, LONGEST_BASIC), INDUCTION_IDS
        return "induction", tokens, [mixture.induction(own, tokens, alphabet) for _ in range(batch // tokens)]
    if kind == "relation" or share - args.induction < args.relation:
        tokens = min(tokens, LONGEST_BASIC)
        return "relation", tokens, [mixture.relation(own, tokens) for _ in range(batch // tokens)]
    label = "now"
    if shared.random() < args.shorter:
        lengths = [n for n in LENGTH_WEIGHTS if n <= tokens]
        tokens = shared.choices(lengths, [LENGTH_WEIGHTS[n] for n in lengths])[0]
        label = str(tokens)
    count = batch // tokens
    first = state["next_seed"] + rank * count
    state["next_seed"] += args.workers * count
    return label, tokens, [mixture.task_chat(first + i, tokens) for i in range(count)]
