"""A corpus of tokens: one document per image or text, a row of token numbers or a grid; its n-grams and its null models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Document = NDArray[np.integer[Any]]
"""Token numbers [n], or a grid [h, w] that is read line by line."""
Corpus = Sequence[Document]
BLOCKS = ((1, 2), (2, 1), (2, 2))
"""Rows and columns of the n-grams that are taken from a grid without making a line of it."""


def ngrams(corpus: Corpus, n: int) -> Counter[tuple[int, ...]]:
    """How often every run of `n` tokens occurs. Runs go on from one line of a grid to the next, never between documents."""
    found: Counter[tuple[int, ...]] = Counter()
    for document in corpus:
        line = document.ravel().tolist()
        found.update(zip(*(line[i:] for i in range(n)), strict=False))
    return found


def blocks(corpus: Corpus, rows: int, columns: int) -> Counter[tuple[int, ...]]:
    """How often every block of `rows` x `columns` tokens occurs in the grids.

    Raises:
        ValueError: a document is no grid.
    """
    found: Counter[tuple[int, ...]] = Counter()
    for document in corpus:
        if document.ndim != 2:
            raise ValueError(f"a document has the shape {document.shape}; blocks need grids [h, w].")
        if document.shape[0] >= rows and document.shape[1] >= columns:
            windows = np.lib.stride_tricks.sliding_window_view(document, (rows, columns))
            found.update(map(tuple, windows.reshape(-1, rows * columns).tolist()))
    return found


def tokens(corpus: Corpus) -> NDArray[np.int64]:
    """All tokens in one row."""
    return np.concatenate([document.ravel() for document in corpus]).astype(np.int64)


def halves(corpus: Corpus) -> tuple[list[Document], list[Document]]:
    """Every other document, to fit and to judge."""
    return list(corpus[::2]), list(corpus[1::2])


def of_equal_size(corpora: Sequence[Corpus]) -> list[list[Document]]:
    """The first documents of each, as many as hold about the tokens of the smallest: size confounds every statistic."""
    least = min(sum(document.size for document in corpus) for corpus in corpora)
    cut = []
    for corpus in corpora:
        ends = np.cumsum([document.size for document in corpus])
        cut.append(list(corpus[: max(1, int(np.searchsorted(ends, least, side="right")))]))
    return cut


def uniform(corpus: Corpus, seed: int) -> list[Document]:
    """Null model: as many tokens, each of the types in use equally likely."""
    rng, types = np.random.default_rng(seed), np.unique(tokens(corpus))
    return [rng.choice(types, document.shape) for document in corpus]


def independent(corpus: Corpus, seed: int) -> list[Document]:
    """Null model: as many tokens, each drawn by how often its type occurs."""
    rng, everything = np.random.default_rng(seed), tokens(corpus)
    return [rng.choice(everything, document.shape) for document in corpus]


def shuffled(corpus: Corpus, seed: int) -> list[Document]:
    """Null model: the tokens of every document in another order. What depends on counts alone stays as it is."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(document.ravel()).reshape(document.shape) for document in corpus]


def row_shuffled(corpus: Corpus, seed: int) -> list[Document]:
    """Null model of grids: tokens in another order within each line; what lies above one another partly survives."""
    rng = np.random.default_rng(seed)
    return [rng.permuted(document, axis=-1) for document in corpus]


NULLS = {"uniform": uniform, "independent": independent, "shuffled": shuffled}
