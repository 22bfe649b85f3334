"""One video as Tempo holds it: the notes of every segment, as many as it may still get, and the frames of the one begun."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.errors import BudgetError
from laconic.methods.tokens.tempo.network import Notes, likely
from laconic.methods.tokens.tempo.routing import Kept, allocate, ceilings, which


class NotedFilm:
    """Reads frames as they come, for one question.

    Args:
        window: frames of a segment. `least`: notes of the least likely segment.
        budget: tokens that the decoder reads, times included; None: as many as relevance asks for.
        question: embeddings of the prompt's text, [q, D].
        kept: which notes of a segment are read; see `routing.which`.
        routed: False: all segments get the same (for comparison).
    """

    def __init__(
        self,
        net: Notes,
        window: int,
        least: int,
        budget: int | None,
        question: Tensor,
        kept: Kept = "head",
        routed: bool = True,
    ):
        self.net, self.window, self.least, self.budget, self.question = net, window, least, budget, question
        self.kept, self.routed = kept, routed
        self.notes: list[Tensor] = []
        self.scores: list[float] = []
        self.ends: list[int] = []
        self.begun: Tensor | None = None

    def add(self, tokens: Tensor, states: Sequence[Tensor] = ()) -> None:
        """The next frames, [t, h, w, D]."""
        waiting = tokens if self.begun is None else torch.cat([self.begun, tokens])
        while len(waiting) >= self.window:
            self._note(waiting[: self.window])
            waiting = waiting[self.window :]
        self.begun = waiting.clone() if len(waiting) else None

    def _note(self, frames: Tensor) -> None:
        """Write notes of a segment, and drop those that no segment can get any more."""
        counts = torch.tensor([len(self.question)], device=frames.device)
        notes, logits = self.net(frames.flatten(0, 2)[None], self.question[None], counts)
        self.notes.append(notes[0])
        self.scores.append(float(likely(logits)[0]))
        self.ends.append((self.ends[-1] if self.ends else 0) + len(frames))
        if self.budget is not None and self.kept == "head" and self.routed:
            most = ceilings(self.scores, self.budget, len(self.net.memory))
            self.notes = [note if len(note) <= k else note[:k].clone() for note, k in zip(self.notes, most, strict=True)]

    def segments(self) -> list[tuple[Tensor, int, int]]:
        """The notes of every segment that are read, and its frames from and to. A segment that has begun ends here.

        Raises:
            BudgetError: fewer than two tokens for each segment.
        """
        if self.begun is not None:
            self._note(self.begun)
            self.begun = None
        most, count = len(self.net.memory), len(self.notes)
        budget = count * most if self.budget is None else self.budget - count
        if budget < count:
            raise BudgetError(
                f"tempo: {count} segments of {self.window} frames have a time and a note each, and the budget leaves "
                f"{budget + count} tokens; raise it to {2 * count}, show fewer frames, or fit longer segments (window=)."
            )
        counts = [min(most, budget // count)] * count
        if self.routed and count > 1:
            counts = allocate(torch.tensor(self.scores), budget, self.least, most)
        picked = [
            note[which(k, len(note), self.kept, i)] for i, (note, k) in enumerate(zip(self.notes, counts, strict=True))
        ]
        return list(zip(picked, [0, *self.ends[:-1]], self.ends, strict=True))

    def soft(self) -> Tensor:
        """What the decoder reads: for every segment its time, then its notes, [m, D]."""
        parts = [torch.cat([self.net.time(begin, end)[None], notes]) for notes, begin, end in self.segments()]
        return torch.cat(parts)
