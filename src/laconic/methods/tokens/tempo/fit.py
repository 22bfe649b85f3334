"""Training of Tempo: the small model and its notes by the answers of the frozen one, and by which segments a question is
about (arXiv 2604.08120, whose losses are not published)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from laconic.fit.video import Filmed, VideoFit
from laconic.fit.visual import Asked
from laconic.methods.tokens.tempo.network import Notes
from laconic.ops.rows import gathered


@dataclass(kw_only=True)
class TempoFit(VideoFit):
    """The small model, its memory tokens, its answers of yes and no, and the bridge. Routing is off: all notes are read.

    Args:
        layers: decoder layers of the small model, copied from the model's first ones.
        window: frames of a segment (8 as published). `notes`: K (128 as published).
        prefix: read a random number of notes in every step; False, as published, reads all.
        relevance: weight of the loss of yes and no, whether a segment shows what is asked about; 0: the small model is taken
            to know.
    """

    layers: int = 4
    window: int = 4
    notes: int = 16
    prefix: bool = False
    relevance: float = 0.3

    method: ClassVar[str] = "tempo"
    may_be_zero: ClassVar[tuple[str, ...]] = (*VideoFit.may_be_zero, "relevance")

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [n for n in self.frames if n % self.window]:
            raise ValueError(f"tempo: frames={wrong[0]} is not divided into segments of window={self.window}.")

    def network(self, model: PreTrainedModel) -> Notes:
        return Notes(model, self.layers, self.notes)

    def logits(self, asked: Asked, rng: random.Random) -> Tensor:
        words, each = self.words(asked), len(asked.ids) // len(asked.features)
        count = rng.randint(1, self.notes) if self.prefix else self.notes
        notes, answers = self.read(asked, words, each, count)
        self.said = self.told(asked, answers)
        w = self.window
        times = [self.net.time(i * w, (i + 1) * w).expand(len(notes), 1, -1) for i in range(notes.shape[1])]
        soft = [x for time, segment in zip(times, notes.unbind(1), strict=True) for x in (time, segment)]
        return self.answered(asked, torch.cat(soft, 1), words)

    def read(self, asked: Asked, words: Tensor, each: int, count: int) -> tuple[Tensor, Tensor]:
        """Notes [Q, S, count, D] and logits of yes and no [Q, S, 2] for `each` question about every clip."""
        segments = asked.features.float().unflatten(1, (-1, self.window)).flatten(2, 4)  # [I, S, n, D]
        clips, parts = segments.shape[:2]
        asks, counts = gathered(words, asked.text), asked.text.sum(1)
        asks, counts = (x.unflatten(0, (clips, 1, each)).expand(-1, parts, *[-1] * x.dim()) for x in (asks, counts))
        notes, answers = self.net(segments.flatten(0, 1), asks.flatten(0, 2), counts.flatten(), count)
        notes, answers = (x.unflatten(0, (clips, parts, each)).transpose(1, 2).flatten(0, 1) for x in (notes, answers))
        return notes, answers

    def told(self, asked: Asked, answers: Tensor) -> Tensor:
        """Cross-entropy of yes and no."""
        assert isinstance(asked, Filmed)
        matters = asked.where.unflatten(1, (-1, self.window)).any(-1)
        return F.cross_entropy(answers.flatten(0, 1).float(), (~matters).long().flatten())

    def loss(self, batch: tuple[Asked, random.Random]) -> Tensor:
        answers = super().loss(batch)
        assert isinstance(answers, Tensor)
        return answers + self.relevance * self.said

    def facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("layers", "window", "notes")}
