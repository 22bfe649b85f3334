"""Teacher forcing: how likely a model finds continuations of a context that a session has compressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from laconic.cache.cache import CompressedCache
from laconic.cache.fork import stock_fork
from laconic.engine.generation import read_context
from laconic.engine.stock import StockSession
from laconic.session import Session


@dataclass(frozen=True)
class Score:
    """Of one continuation of m tokens.

    Attributes:
        log_likelihoods: of its tokens, [m], each given the context and the tokens before it.
        greedy: whether greedy decoding would have produced it.
    """

    log_likelihoods: Tensor
    greedy: bool


@dataclass(frozen=True)
class Scores:
    """One score per continuation, in the order given. `notes`: what methods and transformers warned about."""

    scores: list[Score]
    notes: list[str]


def score(
    session: Session | StockSession,
    context: Sequence[int],
    continuations: Sequence[Sequence[int]],
    at_prompt: Callable[[Any], None] | None = None,
    dtype: torch.dtype | None = None,
) -> list[Score]:
    """Score each continuation after the context in an open session. See `Engine.score`.

    The context is read once. A continuation of one token needs only what the context predicts; a longer one is fed to a fork
    without its last token.
    """
    scores: list[Score] = []
    first = read_context(session, list(context))
    if at_prompt is not None:
        at_prompt(session)
    read = session.cache
    assert read is not None
    for continuation in continuations:
        logits = first
        if len(continuation) > 1:
            session.cache = read.fork() if isinstance(read, CompressedCache) else stock_fork(read)
            with session.hold():
                logits = torch.cat([first, _fed(session, continuation[:-1])])
        scores.append(_score(logits, continuation, dtype))
    return scores


def _fed(session: Session | StockSession, ids: Sequence[int]) -> Tensor:
    """Logits [n, V] of n tokens read after what the cache holds."""
    tokens = torch.tensor([list(ids)], device=session.model.device)
    logits: Tensor = session.model(input_ids=tokens, past_key_values=session.cache, use_cache=True).logits[0]
    return logits


def _score(logits: Tensor, continuation: Sequence[int], dtype: torch.dtype | None) -> Score:
    """The score of the m tokens that `logits` [m, V] predict."""
    wanted = torch.tensor(list(continuation), device=logits.device)
    likely = log_softmax(logits, -1, dtype=dtype)
    return Score(likely.gather(-1, wanted[:, None])[:, 0], bool((likely.argmax(-1) == wanted).all()))
