"""The testbed's procedural scenes as suites: one for each kind of question."""

from __future__ import annotations

from PIL import Image

from laconic.bench.pictures.sample import PictureSample, Suite, digest
from laconic.testbed.evaluate_vlm import NEW_TOKENS
from laconic.testbed.scene_questions import EVALUATION_SEED, QUESTIONS, make
from laconic.testbed.scenes import render

KINDS: tuple[str, ...] = tuple(QUESTIONS)


def scenes(kind: str) -> Suite:
    """Questions of one kind, without end; the seeds lie behind those of training."""
    some = [_sample(kind, EVALUATION_SEED + i) for i in range(3)]
    return Suite(kind, EVALUATION_SEED, None, lambda seed: _sample(kind, seed), whole_answer, NEW_TOKENS, digest(some))


def _sample(kind: str, seed: int) -> PictureSample:
    made = make(kind, seed)
    asked = made.question
    return PictureSample(kind, seed, asked.text, (asked.answer,), lambda: Image.fromarray(render(made.scene)))


def whole_answer(output: str, sample: PictureSample) -> float:
    """1 if the answer is the reference, blanks around it aside."""
    return float(output.strip() == sample.answers[0])
