"""Questions about procedural sound as tasks: one for each kind of question."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from laconic.tasks.audio.questions import QUESTIONS, pose
from laconic.tasks.audio.sounds import render
from laconic.tasks.task import Sample, Task, Turn, digest

NEW_TOKENS = 14
"""Digits of the longest transcription, and the end of the answer."""


@dataclass(frozen=True)
class SoundTask(Task):
    """Questions of one kind, without end. An answer is right if it is the reference, surrounding whitespace aside.

    What a sample shows is a waveform, float32 [n] at 16 kHz.

    Args:
        kind: one of `QUESTIONS`.
    """

    kind: str

    modality: ClassVar[str] = "audio"

    @property
    def new_tokens(self) -> int:
        return NEW_TOKENS

    @cached_property
    def data(self) -> str:
        return digest(self.samples(0, 3))

    def sample(self, number: int) -> Sample:
        clip, question = pose(self.kind, number)
        return Sample(self.name, number, (Turn(question.text, (question.answer,)),), media=(lambda: render(clip),))

    def score(self, answer: str, sample: Sample, turn: int = 0) -> float:
        return float(answer.strip() == sample.turns[turn].answers[0])


SOUND_TASKS = tuple(SoundTask(f"sound_{kind}", kind) for kind in QUESTIONS)
