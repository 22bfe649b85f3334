"""The table of ``testbed/video``: uncompressed accuracy per kind of question and number of frames.

    python -m laconic.testbed.evaluate_video runs/video --samples 400
    python -m laconic.testbed.evaluate_video runs/video --samples 50 --frames 4      # a look while it is trained

Greedy generation through the processor, as a user asks. A kind passes the gate if at least 95 % of its answers are right at
every number of frames.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from laconic.engine.engine import Engine, Request
from laconic.loading import load
from laconic.prompts.batch import encode_clips
from laconic.tasks.video.clips import FRAMES
from laconic.tasks.video.questions import EVALUATION_SEED, QUESTIONS
from laconic.tasks.video.tasks import CLIP_TASKS, NEW_TOKENS, ClipTask
from laconic.testbed.evaluate import GATE
from laconic.testbed.evaluate_audio import cell

BATCH = 25


def correct(model: Any, processor: Any, task: ClipTask, numbers: Sequence[int]) -> list[bool]:
    """Whether each sample of `task` is answered rightly."""
    engine, right = Engine(model, processor), []
    for start in range(0, len(numbers), BATCH):
        samples = [task.sample(number) for number in numbers[start : start + BATCH]]
        inputs = encode_clips(processor, [s.question for s in samples], [s.shown()[0] for s in samples])
        answers = engine.answer_batch(inputs, Request(methods=None, max_new_tokens=NEW_TOKENS))
        right += [task.score(answer.text, sample) == 1 for answer, sample in zip(answers, samples, strict=True)]
    return right


def report(folder: Path, samples: int, seed: int = EVALUATION_SEED, frames: Sequence[int] = FRAMES) -> bool:
    """Load the model in `folder` and print its table; true if every kind passes the gate at every number of `frames`."""
    model, processor = load(str(folder), dtype=torch.float32)
    print(f"answers entirely right in percent, {samples} samples a cell from seed {seed} on")
    print(f"| question | {' | '.join(f'{n} frames' for n in frames)} |\n|---|{'---|' * len(frames)}", flush=True)
    passed = True
    for kind in QUESTIONS:
        cells = []
        for task in (task for task in CLIP_TASKS if task.kind == kind and task.frames in frames):
            right = correct(model, processor, task, range(seed, seed + samples))
            passed = passed and sum(right) >= GATE * len(right)
            cells.append(cell(right))
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    print(f"gate of {GATE:.0%} {'passed' if passed else 'NOT passed'}")
    return passed


def main() -> None:
    """Command line; the exit status is 1 if a kind of question misses the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    parser.add_argument("--frames", type=int, nargs="+", choices=FRAMES, default=FRAMES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.exit(0 if report(args.model, args.samples, args.seed, args.frames) else 1)


if __name__ == "__main__":
    main()
