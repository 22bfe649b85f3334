"""The table of ``testbed/audio``: uncompressed accuracy per kind of question, and over clips of each length.

    python -m laconic.testbed.evaluate_audio runs/audio --samples 400

Greedy generation through the processor, as a user asks. A kind passes the gate if at least 95 % of its answers are right.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from laconic.engine.engine import Engine, Request
from laconic.prompts.batch import encode_sounds
from laconic.tasks.audio.questions import EVALUATION_SEED
from laconic.tasks.audio.sounds import LONGEST, RATE
from laconic.tasks.audio.tasks import NEW_TOKENS, SOUND_TASKS, SoundTask
from laconic.testbed.evaluate import GATE

BATCH = 25
SHORT = LONGEST / 2
"""Seconds of the longest clip that counts as short."""


def correct(model: Any, processor: Any, task: SoundTask, numbers: Sequence[int]) -> tuple[list[bool], list[float]]:
    """Whether each sample of `task` is answered rightly, and the seconds of its clip."""
    engine, right, seconds = Engine(model, processor), [], []
    for start in range(0, len(numbers), BATCH):
        samples = [task.sample(number) for number in numbers[start : start + BATCH]]
        sounds = [sample.shown()[0] for sample in samples]
        inputs = encode_sounds(processor, [sample.question for sample in samples], sounds)
        answers = engine.answer_batch(inputs, Request(methods=None, max_new_tokens=NEW_TOKENS))
        right += [task.score(answer.text, sample) == 1 for answer, sample in zip(answers, samples, strict=True)]
        seconds += [len(sound) / RATE for sound in sounds]
    return right, seconds


def report(folder: Path, samples: int, seed: int = EVALUATION_SEED, dtype: str = "auto") -> bool:
    """Load the model in `folder` and print its table; true if every kind passes the gate."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForMultimodalLM.from_pretrained(folder, dtype=dtype).eval()
    print(f"answers entirely right in percent, {samples} samples a row from seed {seed} on")
    print(f"| question | all | up to {SHORT:g} s | longer |\n|---|---|---|---|", flush=True)
    passed = True
    for task in SOUND_TASKS:
        right, seconds = correct(model, processor, task, range(seed, seed + samples))
        short = [r for r, length in zip(right, seconds, strict=True) if length <= SHORT]
        long = [r for r, length in zip(right, seconds, strict=True) if length > SHORT]
        print(f"| {task.kind} | {cell(right)} | {cell(short)} | {cell(long)} |", flush=True)
        passed = passed and sum(right) >= GATE * len(right)
    print(f"gate of {GATE:.0%} {'passed' if passed else 'NOT passed'}")
    return passed


def cell(right: Sequence[bool]) -> str:
    """A share of right answers in percent, and of how many."""
    return f"{100 * sum(right) / len(right):.1f} of {len(right)}" if right else "-"


def main() -> None:
    """Command line; the exit status is 1 if a kind of question misses the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sys.exit(0 if report(args.model, args.samples, args.seed, args.dtype) else 1)


if __name__ == "__main__":
    main()
