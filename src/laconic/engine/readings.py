"""Prompts that are read once for all methods that leave the reading as it is."""

from __future__ import annotations

from collections.abc import Container, Hashable

import torch
from torch import Tensor

from laconic.cache.recording import Recording, RecordingCache, needs, recorded, repeatable, replaying
from laconic.engine.generation import read_context
from laconic.method import Method
from laconic.session import Session

SPECIAL = 3
"""Recordings that are kept besides those of plain prompts: of prompts with pseudo tokens, say."""


class Readings:
    """Recorded passes over the prompts of one document, by place: a number that tells the prompts apart."""

    def __init__(self) -> None:
        self._recordings: dict[tuple[int, Hashable], Recording] = {}

    def read(self, session: Session, method: Method | None, place: int, ids: list[int]) -> tuple[Tensor, bool]:
        """Read `ids`, the prompt at `place`, into the cache of an open session of `method` (None: of no method).

        Returns:
            logits of what follows, [1, V]; whether the pass was a recorded one, so that its time says nothing. Models with
            layers that laconic leaves alone (sliding window, linear attention) are always read plainly: what such a layer
            has in its cache is not recorded.
        """
        cache = RecordingCache(session.stack.config)
        if cache.left_alone or (method is not None and not repeatable(method)):
            return read_context(session, ids), False
        key = place, () if method is None else needs(method, torch.tensor([ids], device=session.model.device))
        if (known := self._recordings.get(key)) is not None:
            with replaying(session.stack, known):
                return read_context(session, ids), True
        session.cache = cache
        with recorded(session.stack, cache) as recording:
            logits = read_context(session, ids, cache=cache)
        self._keep(key, recording)
        return logits, False

    def forget_all_but(self, places: Container[int]) -> None:
        """Drop the recordings of other prompts."""
        self._recordings = {key: kept for key, kept in self._recordings.items() if key[0] in places}

    def _keep(self, key: tuple[int, Hashable], recording: Recording) -> None:
        """Keep a recording; of those that only some methods need, which are large, those of the latest `SPECIAL` needs."""
        self._recordings[key] = recording
        special = list(dict.fromkeys(need for _, need in self._recordings if need))[-SPECIAL:]
        self._recordings = {k: kept for k, kept in self._recordings.items() if not k[1] or k[1] in special}
