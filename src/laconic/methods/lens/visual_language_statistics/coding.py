"""Entropy and compression: bits per token by counts, by the token before, by Huffman's code and by deflate."""

from __future__ import annotations

import heapq
import itertools
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from laconic.methods.lens.visual_language_statistics.corpus import Corpus, halves, tokens

T = TypeVar("T", bound=Hashable)


def entropy(counts: Iterable[int], corrected: bool = True) -> float:
    """Bits per token. The plug-in estimate is too low for few tokens; Miller and Madow add (types - 1) / 2n nats."""
    seen = np.array([c for c in counts if c], np.float64)
    n = seen.sum()
    plain = float(-(seen / n * np.log2(seen / n)).sum())
    return plain + (len(seen) - 1) / (2 * n * math.log(2)) * corrected


def huffman(counts: Mapping[T, int]) -> dict[T, str]:
    """Huffman's code: bits of every type as text. A single type takes one bit."""
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    number = itertools.count()  # of equal counts, the older node goes first
    heap: list[tuple[int, int, Any]] = [(count, next(number), type_) for type_, count in counts.items()]
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, next(number), [left, right]))
    codes: dict[T, str] = {}
    open_ = [(heap[0][2], "")]
    while open_:
        node, bits = open_.pop()
        if isinstance(node, list):
            open_ += [(node[0], bits + "0"), (node[1], bits + "1")]
        else:
            codes[node] = bits
    return codes


def mean_length(counts: Mapping[T, int], code: Mapping[T, str]) -> float:
    """Bits per token of a code."""
    return sum(count * len(code[type_]) for type_, count in counts.items()) / sum(counts.values())


def encode(sequence: Iterable[T], code: Mapping[T, str]) -> str:
    return "".join(code[token] for token in sequence)


def decode(bits: str, code: Mapping[T, str]) -> list[T]:
    back, found, word = {bits_: type_ for type_, bits_ in code.items()}, [], ""
    for bit in bits:
        word += bit
        if word in back:
            found.append(back[word])
            word = ""
    return found


def saving(counts: Mapping[T, int]) -> float:
    """Share that Huffman's code saves against equally long words for the types in use."""
    equal = math.log2(len(counts)) if len(counts) > 1 else 1.0
    return 1 - mean_length(counts, huffman(counts)) / equal


def deflated(corpus: Corpus) -> float:
    """Bytes per token after deflate, each token stored in two or four bytes."""
    everything = tokens(corpus)
    kind = np.uint16 if everything.max() < 2**16 else np.uint32
    return len(zlib.compress(everything.astype(kind).tobytes(), 9)) / len(everything)


class NGrams:
    """Interpolated n-gram model: each order backs off to the next lower one by Witten and Bell, the lowest to equal odds.

    Args:
        types: how many types there are in all.
    """

    def __init__(self, corpus: Corpus, n: int, types: int):
        self.n, self.types = n, types
        self.counts: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(n)]
        for line in (document.ravel().tolist() for document in corpus):
            for at, token in enumerate(line):
                for order in range(min(n, at + 1)):
                    self.counts[order][tuple(line[at - order : at])][token] += 1

    def probability(self, past: Sequence[int], token: int) -> float:
        """Of `token` after the tokens `past`, of which the last n - 1 count."""
        p = 1 / self.types
        for order in range(min(self.n, len(past) + 1)):
            seen = self.counts[order].get(tuple(past[len(past) - order :]))
            if seen is not None:
                p = (seen[token] + len(seen) * p) / (seen.total() + len(seen))
        return p

    def bits(self, corpus: Corpus) -> float:
        """Bits per token of other documents."""
        total, n = 0.0, 0
        for line in (document.ravel().tolist() for document in corpus):
            for at, token in enumerate(line):
                total -= math.log2(self.probability(line[max(0, at - self.n + 1) : at], token))
            n += len(line)
        return total / n


def gain(corpus: Corpus, n: int = 2) -> float:
    """Bits per token that the n - 1 tokens before save, on every other document by a model of the rest."""
    fitted, judged = halves(corpus)
    types = len(np.unique(tokens(corpus)))
    return NGrams(fitted, 1, types).bits(judged) - NGrams(fitted, n, types).bits(judged)
