"""One video as VideoStreaming holds it: a memory and a code for every clip, and the frames of the clip that has begun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from laconic.methods.tokens.videostreaming.network import Streaming, relevance
from laconic.methods.tokens.videostreaming.selection import nearest


class Kept(NamedTuple):
    """The memory [m, D] and the code [D] of frames `begin` to before `end`."""

    memory: Tensor
    code: Tensor
    begin: int
    end: int


class StreamedFilm:
    """Reads frames as they come. Kept are P + 1/T vectors a frame; the frames themselves only until their clip is whole.

    Args:
        length: T, frames of a clip. `select`: V, memories that the decoder reads.
        question: embeddings of the prompt's text, [q, D].
    """

    def __init__(self, net: Streaming, length: int, select: int, question: Tensor):
        self.net, self.length, self.select, self.question = net, length, select, question
        self.kept: list[Kept] = []
        self.begun: Tensor | None = None

    def add(self, tokens: Tensor, states: Sequence[Tensor] = ()) -> None:
        """The next frames, [t, h, w, D]."""
        waiting = tokens if self.begun is None else torch.cat([self.begun, tokens])
        while len(waiting) >= self.length:
            self.kept.append(self._read(waiting[: self.length]))
            waiting = waiting[self.length :]
        self.begun = waiting.clone() if len(waiting) else None

    def _read(self, frames: Tensor) -> Kept:
        last = self.kept[-1] if self.kept else None
        first = 0 if last is None else last.end
        memory, code = self.net.clip(frames[None], first, None if last is None else last.memory[None])
        return Kept(memory[0], code[0].clone(), first, first + len(frames))  # a view would hold on to all states

    def clips(self) -> list[Kept]:
        """All clips so far; the last one may be shorter."""
        return self.kept if self.begun is None else [*self.kept, self._read(self.begun)]

    def scores(self, clips: Sequence[Kept], question: Tensor) -> Tensor:
        """How near each of these clips is to a question [q, D], [K]."""
        counts = torch.tensor([len(question)], device=question.device)
        asked = self.net.question(clips[-1].memory[None], question[None], counts)
        return relevance(asked, torch.stack([clip.code for clip in clips])[None])[0]

    def chosen(self, question: Tensor | None = None) -> list[Kept]:
        """The memories nearest to a question, in the order of time; None: to that of the prompt."""
        clips = self.clips()
        if len(clips) <= self.select:
            return clips
        scores = self.scores(clips, self.question if question is None else question)
        return [clips[k] for k in nearest(scores, self.select).tolist()]

    def soft(self, question: Tensor | None = None) -> Tensor:
        """What the decoder reads, [V (1 + m), D]."""
        placed = [self.net.placed(one.memory[None], one.begin, one.end)[0] for one in self.chosen(question)]
        return torch.cat(placed)
