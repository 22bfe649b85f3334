"""Training batches of ``testbed/video``: clips of one number of frames, many questions about each."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from laconic.tasks.video.clips import Clip, draw, film
from laconic.tasks.video.questions import QUESTIONS, Question, dialogue
from laconic.testbed.packing import Packed, Writer, pack
from laconic.testbed.scene_batch import pixels_of
from laconic.testbed.video_model import FRAME_TOKENS, VIDEO

KIND_NAMES = list(QUESTIONS)
CHAINED = 0.2
"""Share of rows whose questions are turns of one chat."""


@dataclass
class Batch:
    """B clips of T frames: packed prompts, kinds [Q] of the questions, pixels [B, T, 3, S, S] in -1 .. 1."""

    packed: Packed
    kinds: Tensor
    pixels: Tensor


class Batches:
    """Draws batches with a tokenizer of the testbed."""

    def __init__(self, tokenizer: Any) -> None:
        self.writer, self.video = Writer(tokenizer), tokenizer.convert_tokens_to_ids(VIDEO)

    def draw(self, rng: random.Random, rows: int, questions: int, weights: dict[str, float], frames: int) -> Batch:
        """``rows`` fresh clips of ``frames`` frames with up to ``questions`` each, kinds by ``weights``."""
        clips = [draw(rng, frames) for _ in range(rows)]
        asked = [dialogue(rng, clip, questions, weights) for clip in clips]
        return self.collate(clips, asked, [rng.random() < CHAINED for _ in clips])

    def opening(self, frames: int) -> list[int]:
        """What a prompt about a clip of ``frames`` frames begins with."""
        return [self.writer.bos, self.writer.user, *[self.video] * (frames * FRAME_TOKENS + 1)]

    def collate(self, clips: Sequence[Clip], asked: Sequence[Sequence[Question]], chained: Sequence[bool]) -> Batch:
        """The batch of ``clips``, all of one number of frames, and the questions ``asked`` about each."""
        openings = [self.opening(clip.frames) for clip in clips]
        turns = [self.writer.turns(*row) for row in zip(asked, chained, strict=True)]
        kinds = torch.tensor([KIND_NAMES.index(q.kind) for questions in asked for q in questions], dtype=torch.long)
        return Batch(pack(openings, turns, chained), kinds, pixels_of([film(clip) for clip in clips]))
