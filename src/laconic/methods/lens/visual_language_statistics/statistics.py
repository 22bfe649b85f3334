"""All statistics of one corpus beside its null models, and those of several corpora cut to one size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from laconic.methods.lens.visual_language_statistics import coding, grammar, innovation, topology, zipf
from laconic.methods.lens.visual_language_statistics.corpus import (
    BLOCKS,
    NULLS,
    Corpus,
    blocks,
    halves,
    ngrams,
    of_equal_size,
    row_shuffled,
    tokens,
)

COMPARED = 100
"""The most frequent types, whose neighbourhoods two corpora are compared by."""


def stats(corpus: Corpus, null: bool = True, seed: int = 0) -> dict[str, Any]:
    """What the corpus says, and with `null` what its null models say: a statistic equal to its null carries no structure.

    Raises:
        ValueError: fewer than four documents, or one that is empty.
    """
    if len(corpus) < 4 or any(document.size == 0 for document in corpus):
        raise ValueError(f"{len(corpus)} documents, none of them empty: statistics need at least four.")
    found: dict[str, Any] = _one(corpus)
    if null:
        grids = all(document.ndim == 2 for document in corpus)
        models = {**NULLS, **({"row_shuffled": row_shuffled} if grids else {})}
        found["null"] = {name: _one(model(corpus, seed)) for name, model in models.items()}
    return found


def compare(corpora: Mapping[str, Corpus], seed: int = 0) -> dict[str, Any]:
    """The statistics of several corpora, cut to the tokens of the smallest, and how far their topologies are apart."""
    cut = dict(zip(corpora, of_equal_size(list(corpora.values())), strict=True))
    spaces = {name: _space(corpus) for name, corpus in cut.items()}
    least = min(len(space) for space in spaces.values())
    apart = {
        f"{a} / {b}": topology.procrustes(
            spaces[a][:least], spaces[b][:least][topology.matched(spaces[a][:least], spaces[b][:least])]
        )
        for i, a in enumerate(cut)
        for b in list(cut)[i + 1 :]
    }
    return {"corpora": {name: stats(corpus, True, seed) for name, corpus in cut.items()}, "distance": apart}


def grammar_gain(
    corpus: Corpus, length: int = 8, words: int = 32, inner: int = 6, leaves: int = 12, steps: int = 150
) -> dict[str, Any]:
    """Perplexity of a fitted grammar beside that of bigrams, on every other document.

    Args:
        length: tokens of a sequence: the documents are cut into pieces, because the cost grows with the cube.
        words: types that are told apart, the most frequent ones; all others are one more.
    """
    types, counts = np.unique(tokens(corpus), return_counts=True)
    common = types[np.argsort(-counts, kind="stable")[:words]]
    names = {type_: i for i, type_ in enumerate(common.tolist())}
    pieces = []
    for half in halves(corpus):
        lines = [np.array([names.get(t, len(common)) for t in document.ravel().tolist()]) for document in half]
        pieces.append([line[i : i + length] for line in lines for i in range(0, len(line) - length + 1, length)])
    fitted, judged = pieces
    if not fitted or not judged:
        raise ValueError(f"no document has {length} tokens; give a smaller length.")
    made = grammar.fit(torch.from_numpy(np.stack(fitted)), inner, leaves, len(common) + 1, steps)
    bigram = coding.NGrams(fitted, 2, len(common) + 1).bits(judged)
    return {
        "length": length,
        "grammar": grammar.perplexity(made, torch.from_numpy(np.stack(judged))),
        "bigram": 2**bigram,
    }


def _one(corpus: Corpus) -> dict[str, Any]:
    counts = {n: ngrams(corpus, n) for n in (1, 2, 3, 4)}
    single = counts[1]
    found = {
        "documents": len(corpus),
        "tokens": single.total(),
        "types": len(single),
        "entropy": coding.entropy(single.values()),
        "bigram_gain": coding.gain(corpus),
        "huffman_saving": coding.saving(single),
        "deflate_bytes": coding.deflated(corpus),
        "innovation": innovation.summary(corpus),
        "zipf": {str(n): _zipf(count) for n, count in counts.items()},
    }
    if all(document.ndim == 2 for document in corpus):
        found["zipf_blocks"] = {f"{r}x{c}": _zipf(blocks(corpus, r, c)) for r, c in BLOCKS}
    return found


def _zipf(counts: Mapping[Any, int]) -> dict[str, Any] | None:
    """None where too few types occur to fit anything."""
    held = np.array(list(counts.values()), np.int64)
    return zipf.summary(held) if len(held) >= zipf.TAIL else None


def _space(corpus: Corpus) -> topology.Vectors:
    return topology.vectors(corpus, [type_ for (type_,), _ in ngrams(corpus, 1).most_common(COMPARED)])
