"""Questions about drawn scenes as tasks: one for each kind of question and each size of scene."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from laconic.tasks.scenes.questions import QUESTIONS, make
from laconic.tasks.scenes.scenes import LARGE, SIZE
from laconic.tasks.task import Sample, Task, about_image, digest

NEW_TOKENS = 6
KINDS: tuple[str, ...] = tuple(QUESTIONS)


@dataclass(frozen=True)
class SceneTask(Task):
    """Questions of one kind, without end. An answer is right if it is the reference, surrounding whitespace aside.

    Args:
        kind: one of `KINDS`.
        size: pixels a side.
    """

    kind: str
    size: int

    modality: ClassVar[str] = "image"

    @property
    def new_tokens(self) -> int:
        return NEW_TOKENS

    @cached_property
    def data(self) -> str:
        return digest(self.samples(0, 3))

    def sample(self, number: int) -> Sample:
        made = make(self.kind, number, self.size)
        return about_image(self.name, number, made.question, made.answers, made.media[0])

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return float(answer.strip() == sample.turns[turn].answers[0])


SCENE_TASKS = (
    *(SceneTask(kind, kind, SIZE) for kind in KINDS),
    *(SceneTask(f"large_{kind}", kind, LARGE) for kind in KINDS),
)
"""The large ones are for models that read images at any resolution."""
