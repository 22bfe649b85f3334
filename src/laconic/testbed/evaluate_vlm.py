"""The table of a vision testbed model: uncompressed accuracy per kind of question, over all samples and over the hard part.

    python -m laconic.testbed.evaluate_vlm src/laconic/testbed/vlm --samples 400

A sample is hard if the model gets it wrong once the sides of its image are made four times shorter (and enlarged again):
the other samples say little about a method that removes visual tokens. Each model has its own hard part; see
`laconic.media.coarse`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from laconic.engine.engine import Answer, Engine, Request
from laconic.media.coarse import FACTOR, coarse
from laconic.method import Method
from laconic.prompts.batch import encode
from laconic.tasks import Sample, find_task
from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, make
from laconic.tasks.scenes.scenes import LARGE, SIZE
from laconic.tasks.scenes.tasks import NEW_TOKENS
from laconic.testbed.evaluate import GATE

BATCH = 50


def ask(
    model: Any,
    processor: Any,
    samples: list[Sample],
    images: list[Image.Image] | None = None,
    methods: Sequence[Method] | None = None,
) -> list[Answer]:
    """Answers to `samples`, as one batch.

    Args:
        images: shown in place of the samples' own.
        methods: what compresses; None: the uncompressed model.
    """
    shown = images or [image for sample in samples for image in sample.shown()]
    inputs = encode(processor, [sample.question for sample in samples], shown)
    return Engine(model, processor).answer_batch(inputs, Request(methods=methods, max_new_tokens=NEW_TOKENS))


def correct(samples: list[Sample], answers: Sequence[Answer]) -> list[bool]:
    """Whether each of `samples` is answered correctly."""
    return [find_task(x.task).score(answer.text, x) == 1 for x, answer in zip(samples, answers, strict=True)]


def marks(model: Any, processor: Any, samples: list[Sample], factor: int = FACTOR) -> NDArray[np.bool_]:
    """Per sample, whether the answer is right, and whether it is with the sides `factor` times shorter: [2, N]."""
    right = np.zeros((2, len(samples)), dtype=bool)
    for start in range(0, len(samples), BATCH):
        some = samples[start : start + BATCH]
        images = [image for sample in some for image in sample.shown()]
        for row, shown in enumerate((images, [coarse(image, factor) for image in images])):
            right[row, start : start + len(some)] = correct(some, ask(model, processor, some, shown))
    return right


def size_of(model: Any) -> int:
    """Pixels a side of the scenes that a model of the testbed was trained on."""
    return LARGE if model.config.model_type == "llava_next" else SIZE


def table(model: Any, processor: Any, samples: int, seed: int = EVALUATION_SEED, factor: int = FACTOR) -> bool:
    """Print the accuracy of each kind of question; true if all pass the gate.

    Columns: accuracy over all samples, accuracy with fewer pixels, share that is hard, accuracy over the hard part.
    """
    print("| question | all | fewer pixels | hard share | hard part |\n|---|---|---|---|---|", flush=True)
    passed = True
    for kind in QUESTIONS:
        right, survived = marks(model, processor, [make(kind, seed + i, size_of(model)) for i in range(samples)], factor)
        hard = right[~survived]
        part = f"{100 * hard.mean():.1f}" if len(hard) else "-"
        cells = f"{100 * right.mean():.1f} | {100 * survived.mean():.1f} | {100 * (~survived).mean():.1f} | {part}"
        print(f"| {kind} | {cells} |", flush=True)
        passed = passed and bool(right.mean() >= GATE)
    return passed


def report(folder: Path, samples: int = 400, seed: int = EVALUATION_SEED, dtype: str = "auto", factor: int = FACTOR) -> bool:
    """Load the model in `folder` and print its table; true if it passes the gate."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    began = time.time()
    print(f"accuracy in percent, {samples} samples a row from seed {seed} on; hard: wrong with sides {factor} times shorter")
    passed = table(model, processor, samples, seed, factor)
    print(f"gate of {GATE:.0%} {'passed' if passed else 'NOT passed'}; {time.time() - began:.0f} s")
    return passed


def main() -> None:
    """Command line; the exit status is 1 if a kind of question misses the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    parser.add_argument(
        "--factor", type=int, default=FACTOR, help="how many times shorter the sides are in the test for hard samples"
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sys.exit(0 if report(args.model, args.samples, args.seed, args.dtype, args.factor) else 1)


if __name__ == "__main__":
    main()
