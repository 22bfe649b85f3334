"""How many bits a text takes: under a model that predicts it, under its own counts, and deflated."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


@torch.no_grad()
def predicted_bits(model: Any, ids: Sequence[int], window: int, before: int) -> float:
    """Bits of the prequential code of all tokens but the first: the sum of ``-log2 p(token | tokens before it)``.

    A text longer than `window` is read in windows, each of which begins with the last `before` tokens of the one before it,
    so that every token is predicted once and from at least so many.

    Raises:
        ValueError: fewer than two tokens, or windows that share all their tokens.
    """
    if len(ids) < 2 or not 0 < before < window:
        raise ValueError(f"{len(ids)} tokens, window={window}, before={before}: two tokens at least, 0 < before < window.")
    total, done = 0.0, 1
    while done < len(ids):
        start = max(0, done - before)
        rows = torch.tensor([list(ids[start : start + window])], device=model.device)
        logits: Tensor = model(input_ids=rows, use_cache=False).logits[0, done - start - 1 : -1]
        total += float(cross_entropy(logits.float(), rows[0, done - start :], reduction="sum")) / math.log(2)
        done = start + rows.shape[1]
    return total


def counted_bits(symbols: Sequence[Any]) -> float:
    """Bits under the symbols' own frequencies, which are given for nothing: a bound for every code of order zero."""
    counts = Counter(symbols)
    return -sum(count * math.log2(count / len(symbols)) for count in counts.values())


def deflated_bits(text: bytes) -> int:
    """Bits of the text deflated."""
    return 8 * len(zlib.compress(text, 9))
