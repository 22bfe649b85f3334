"""The rows of a running batch: what each has answered, when it ends, and why."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria

from laconic.serve.worker.sampling import RowSampler, Sampling
from laconic.serve.worker.text import TextStream

Finish = Literal["stop", "length", "cancelled", "deadline"]


@dataclass
class Row:
    """One answer.

    Attributes:
        request: id of the request. `index`: which of its answers.
        prompt: token ids of the whole prompt.
        room: most tokens of the answer. `stops`: strings that end it. `top_logprobs`: None, or how many to tell.
        deadline: of `time.monotonic()`.
        cancelled: set by another thread; the row ends at its next token.
        tokens: decoded so far, the one that ends the turn included. `finish`: why it ended.
    """

    request: str
    index: int
    prompt: list[int]
    sampling: Sampling
    room: int
    stops: Sequence[str] = ()
    top_logprobs: int | None = None
    deadline: float = math.inf
    cancelled: bool = False
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None

    def end(self, now: float, token: int, ends: Sequence[int], stopped: bool) -> Finish | None:
        """Why the row ends with `token`, if it does."""
        if self.cancelled:
            return "cancelled"
        if token in ends or stopped:
            return "stop"
        if len(self.tokens) >= self.room:
            return "length"
        return "deadline" if now > self.deadline else None


OnPiece = Callable[[Row, str, list[dict[str, Any]]], None]
"""Receives the row, new text, and what is to be told of the tokens since the last call."""


class Answers(StoppingCriteria):
    """Reads every token that comes out of `generate()`, and ends rows one by one.

    Args:
        ends: tokens that end a turn. `sampler`: of the same batch.
        on_piece: called with new text, and for every row once more when it has ended.
        at_first: called when the whole prompt is in the cache and nothing has been decoded.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        tokenizer: Any,
        ends: Sequence[int],
        sampler: RowSampler,
        on_piece: OnPiece,
        at_first: Callable[[], None],
    ):
        self._rows, self._tokenizer, self._ends, self._sampler = rows, tokenizer, ends, sampler
        self._on_piece, self._at_first = on_piece, at_first
        self._streams = [TextStream(tokenizer, row.stops) for row in rows]
        self._told: list[list[dict[str, Any]]] = [[] for _ in rows]
        self.first = self.last = 0.0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        self.last = time.perf_counter()
        if not self.first:
            self.first = self.last
            self._at_first()
        for i, token in enumerate(input_ids[:, -1].tolist()):
            if self._rows[i].finish is None:
                self._take(i, token)
        return torch.tensor([row.finish is not None for row in self._rows], device=input_ids.device)

    def _take(self, i: int, token: int) -> None:
        row, stream = self._rows[i], self._streams[i]
        row.tokens.append(token)
        text = "" if token in self._ends else stream.push(token)
        row.finish = row.end(time.monotonic(), token, self._ends, stream.stopped)
        if row.top_logprobs is not None and token not in self._ends:
            self._told[i].append(self._token(i, token, row.top_logprobs))
        if row.finish is not None:
            text += stream.finish()
        if text or row.finish is not None or len(row.tokens) == 1:
            told, self._told[i] = self._told[i], []
            self._on_piece(row, text, told)

    def _token(self, i: int, token: int, top: int) -> dict[str, Any]:
        """A token with its log probability, and the `top` likeliest ones."""
        assert self._sampler.logprobs is not None
        values = self._sampler.logprobs[i]
        best = values.topk(top) if top else None
        likeliest = [] if best is None else zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return self._named(token, float(values[token])) | {"top_logprobs": [self._named(x, value) for x, value in likeliest]}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._tokenizer.decode([token])
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode("utf-8", "replace"))}
