"""The testbed's procedural scenes as suites: one for each kind of question and each size."""

from __future__ import annotations

from laconic.tasks.sample import ImageSample, Suite, digest
from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, make
from laconic.tasks.scenes.scenes import SIZE
from laconic.testbed.any_resolution import LARGE
from laconic.testbed.evaluate_vlm import NEW_TOKENS

KINDS: tuple[str, ...] = tuple(QUESTIONS)
LARGE_KINDS = tuple(f"large_{kind}" for kind in KINDS)
"""The same questions about scenes of four times the pixels, for models that read images at any resolution."""


def scenes(task: str) -> Suite:
    """Questions of one kind, without end; the seeds lie behind those of training."""
    some = [_sample(task, EVALUATION_SEED + i) for i in range(3)]
    return Suite(task, EVALUATION_SEED, None, lambda seed: _sample(task, seed), whole_answer, NEW_TOKENS, digest(some))


def _sample(task: str, seed: int) -> ImageSample:
    made = make(task.removeprefix("large_"), seed, LARGE if task in LARGE_KINDS else SIZE)
    asked = made.question
    return ImageSample(task, seed, asked.text, (asked.answer,), made.image)


def whole_answer(output: str, sample: ImageSample) -> float:
    """1 if the answer is the reference, blanks around it aside."""
    return float(output.strip() == sample.answers[0])
