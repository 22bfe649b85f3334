"""Innovation: how new types keep arriving, by document and by token."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.methods.lens.visual_language_statistics.corpus import Corpus


def types_by_document(corpus: Corpus) -> NDArray[np.int64]:
    """V(k), types in the first k documents, for k from 1 on."""
    seen: set[int] = set()
    curve = []
    for document in corpus:
        seen.update(document.ravel().tolist())
        curve.append(len(seen))
    return np.array(curve)


def documents_until(corpus: Corpus, share: float = 0.95) -> int:
    """How many documents hold this share of all types."""
    curve = types_by_document(corpus)
    return int(np.argmax(curve >= share * curve[-1])) + 1


def heaps(corpus: Corpus) -> float:
    """The exponent of V over tokens, ``V ~ n^b``, on the first half of the documents (at least two)."""
    n = np.cumsum([document.size for document in corpus])
    first = max(2, len(corpus) // 2)
    if len(corpus) < 2:
        raise ValueError("one document: how types arrive needs at least two.")
    return float(np.polyfit(np.log(n[:first]), np.log(types_by_document(corpus)[:first]), 1)[0])


def yule_simon(corpus: Corpus) -> dict[str, float]:
    """Simon's rate a, new types per token, and the exponent ``1 + 1 / (1 - a)`` that his model gives the counts."""
    rate = float(types_by_document(corpus)[-1] / sum(document.size for document in corpus))
    return {"rate": rate, "exponent": 1 + 1 / (1 - rate) if rate < 1 else float("inf")}


def simon(n: int, rate: float, seed: int) -> NDArray[np.int64]:
    """Tokens of Simon's process: a new type with probability `rate`, else a copy of any earlier token."""
    rng = np.random.default_rng(seed)
    made, types = np.zeros(n, np.int64), 1
    fresh, copied = rng.random(n) < rate, rng.random(n)
    for i in range(1, n):
        if fresh[i]:
            made[i], types = types, types + 1
        else:
            made[i] = made[int(copied[i] * i)]
    return made


def summary(corpus: Corpus) -> dict[str, Any]:
    """All of it as plain values."""
    curve = types_by_document(corpus)
    return {"types": int(curve[-1]), "documents_until_95": documents_until(corpus), "heaps": heaps(corpus)} | {
        f"yule_{name}": value for name, value in yule_simon(corpus).items()
    }
