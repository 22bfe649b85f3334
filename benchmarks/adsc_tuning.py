"""Does tuning with ADSC's bottlenecks bring back what they cost, and is even spacing the point?

    OMP_NUM_THREADS=1 python benchmarks/adsc_tuning.py

On testbed/vlm, a quarter of the visual tokens goes on before layers 2 and 4 of 8: the last of each group, or as many at
random, drawn anew in every pass. Right answers without tuning and after some hundred steps on drawn scenes; about ten
minutes.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from laconic import compress, load
from laconic.fit.images import scenes, with_answers
from laconic.fit.losses import answer_loss
from laconic.methods.tokens.adsc import ADSC
from laconic.stream.assemble import assemble
from laconic.stream.contract import Cut, Stream
from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, make
from laconic.testbed.evaluate_vlm import ask, correct

LAYERS, FACTOR = (2, 4), 4
SEED, ROWS, RATE = EVALUATION_SEED + 800_000, 32, 5e-4


@dataclass(kw_only=True)
class AtRandom(ADSC):
    """As many tokens in the same places of the decoder, but any."""

    name: ClassVar[str] = "adsc_at_random"

    def cut(self, stream: Stream) -> Cut | None:
        kept = []
        for b in range(len(stream.hidden)):
            at = stream.images(b)
            kept.append(at[torch.randperm(len(at))[: -(-len(at) // FACTOR)].sort().values])
        return assemble(stream, kept)


def right(model: Any, processor: Any, method: ADSC, samples: int) -> tuple[float, dict[str, float]]:
    """Percent of right answers: mean over the kinds of question, and each kind."""
    found = {}
    for kind in QUESTIONS:
        asked = [make(kind, SEED + i) for i in range(samples)]
        answers = ask(model.eval(), processor, asked, methods=[method])
        found[kind] = 100 * sum(correct(asked, answers)) / samples
    return sum(found.values()) / len(found), found


def tune(model: Any, processor: Any, method: type[ADSC], steps: int) -> None:
    """AdamW on fresh scenes with the bottlenecks in place; the rate falls to zero."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=RATE, weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * (1 - step / steps)
        given, labels = with_answers(processor, scenes(ROWS, step * ROWS))
        with compress(model, method(layers=LAYERS, factor=FACTOR)) as session:
            answer_loss(session, model(**given).logits, labels).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    """Print a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--samples", type=int, default=60, help="of each kind of question")
    args = parser.parse_args()
    torch.manual_seed(0)
    shipped, processor = load("testbed/vlm")
    print(f"| | mean | {' | '.join(QUESTIONS)} |\n|---|---|{'---|' * len(QUESTIONS)}")
    for title, method in (("every fourth", ADSC), ("at random", AtRandom)):
        model = copy.deepcopy(shipped)
        for state in ("as it is", "tuned"):
            if state == "tuned":
                tune(model, processor, method, args.steps)
            mean, kinds = right(model, processor, method(layers=LAYERS, factor=FACTOR), args.samples)
            print(f"| {title}, {state} | {mean:.1f} | {' | '.join(f'{x:.0f}' for x in kinds.values())} |", flush=True)


if __name__ == "__main__":
    main()
