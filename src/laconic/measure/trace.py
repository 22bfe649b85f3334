"""What a session did: which layers were shortened, by whom, from how many entries to how many."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Event:
    """One layer shortened once.

    Attributes:
        layer: decoder layer index; -1 is before the first.
        method: name in the catalogue.
        before, after: entries of the longest head before and after.
        stream: places in the pass, from 0, of the tokens that go on to the next layers, [B, m], -1 where there is none; None
            when the stream was left alone.
        merged: the row of the stream into which each of its rows went, [B, before]; -1 where it was dropped; None when
            nothing was merged.
        scores: what the rows of the stream were ranked by, [B, before], nan where a row has none; None where the method
            does not say.
    """

    layer: int
    method: str
    before: int
    after: int
    stream: torch.Tensor | None = None
    merged: torch.Tensor | None = None
    scores: torch.Tensor | None = None


@dataclass
class Trace:
    """Events in order. What is kept *now* is read from the cache itself: `Session.kept()`."""

    events: list[Event] = field(default_factory=list)

    def add(
        self,
        layer: int,
        method: str,
        before: int,
        after: int,
        stream: torch.Tensor | None = None,
        merged: torch.Tensor | None = None,
        scores: torch.Tensor | None = None,
    ) -> None:
        """Record one event; nothing that was removed is kept alive."""
        self.events.append(Event(layer, method, before, after, stream, merged, scores))

    def removed(self) -> dict[int, int]:
        """Entries removed per layer (longest head), summed over all events."""
        total: dict[int, int] = {}
        for event in self.events:
            total[event.layer] = total.get(event.layer, 0) + event.before - event.after
        return total

    def clear(self) -> None:
        """Forget all events."""
        self.events.clear()
