"""Requests that wait for the model, and which of them are answered together."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from laconic.serve.job import Job

SPREAD, SLACK = 1.25, 64
"""The longest question of a batch has at most so many times, or so many more, tokens than the shortest."""


@dataclass(eq=False)
class Ticket:
    """A request in the queue.

    Attributes:
        key: name of the API key. `tokens`: of its prompt; `shared`: of them, those of a context that it names.
        shares: whether it may be answered together with others.
        entered, deadline: of the front's clock.
        hear: receives what the worker says of it.
    """

    job: Job
    key: str
    tokens: int
    shared: int
    shares: bool
    entered: float
    deadline: float
    hear: Callable[[dict[str, Any]], None]

    @property
    def kind(self) -> str:
        """What requests of one batch have in common."""
        return json.dumps([None if self.job.context is None else vars(self.job.context), self.job.compress], sort_keys=True)

    @property
    def own(self) -> int:
        """Tokens that are not shared."""
        return self.tokens - self.shared


@dataclass
class Waiting:
    """The queue: keys in turn, first come first served within a key."""

    _by_key: OrderedDict[str, list[Ticket]] = field(default_factory=OrderedDict)

    def __iter__(self) -> Iterator[Ticket]:
        for tickets in self._by_key.values():
            yield from tickets

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._by_key.values())

    @property
    def tokens(self) -> int:
        return sum(ticket.own for ticket in self)

    def add(self, ticket: Ticket) -> None:
        self._by_key.setdefault(ticket.key, []).append(ticket)

    def remove(self, ticket: Ticket) -> bool:
        """Take a ticket out; False if it was not there."""
        tickets = self._by_key.get(ticket.key, [])
        if ticket not in tickets:
            return False
        tickets.remove(ticket)
        if not tickets:
            del self._by_key[ticket.key]
        return True

    def next_batch(self, most: int) -> list[Ticket]:
        """Take out the next key's first ticket, and those of any key that can share its batch of at most `most` rows."""
        if not self._by_key:
            return []
        key = next(iter(self._by_key))
        first = self._by_key[key][0]
        batch, rows = [first], first.job.n
        if first.shares:
            for ticket in sorted((t for t in self if t is not first), key=lambda ticket: ticket.entered):
                fits = rows + ticket.job.n <= most and ticket.shares and ticket.kind == first.kind
                if fits and _close([*(t.own for t in batch), ticket.own]):
                    batch.append(ticket)
                    rows += ticket.job.n
        for ticket in batch:
            self.remove(ticket)
        if key in self._by_key:
            self._by_key.move_to_end(key)
        return batch


def _close(lengths: list[int]) -> bool:
    """Whether padding to the longest costs little."""
    return max(lengths) <= max(SPREAD * min(lengths), min(lengths) + SLACK)
