"""Questions about procedural clips as tasks: one for each kind of question and number of frames."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from laconic.tasks.task import Sample, Task, Turn, digest
from laconic.tasks.video.clips import FRAMES, film
from laconic.tasks.video.questions import QUESTIONS, pose

NEW_TOKENS = 4


@dataclass(frozen=True)
class ClipTask(Task):
    """Questions of one kind, without end. An answer is right if it is the reference, surrounding whitespace aside.

    What a sample shows is a clip, uint8 [T, 48, 48, 3].

    Args:
        kind: one of `QUESTIONS`.
        frames: T.
    """

    kind: str
    frames: int

    modality: ClassVar[str] = "video"

    @property
    def new_tokens(self) -> int:
        return NEW_TOKENS

    @cached_property
    def data(self) -> str:
        return digest(self.samples(0, 3))

    def sample(self, number: int) -> Sample:
        clip, question = pose(self.kind, number, self.frames)
        return Sample(self.name, number, (Turn(question.text, (question.answer,)),), media=(lambda: film(clip),))

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return float(answer.strip() == sample.turns[turn].answers[0])


CLIP_TASKS = tuple(ClipTask(f"clip_{kind}_{frames}", kind, frames) for kind in QUESTIONS for frames in FRAMES)
