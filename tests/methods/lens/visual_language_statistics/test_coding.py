"""Entropy, Huffman's code and n-grams against references."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from laconic.methods.lens.visual_language_statistics import coding
from laconic.methods.lens.visual_language_statistics.corpus import ngrams, shuffled


def slow_huffman_bits(counts):
    """Total bits: the sum of all merged weights, two smallest first."""
    weights, total = sorted(counts), 0
    while len(weights) > 1:
        merged = weights[0] + weights[1]
        total += merged
        weights = sorted([*weights[2:], merged])
    return total


def test_2_uniform_tokens_have_log2_v_bits_and_nothing_to_save():
    x = np.random.default_rng(0).integers(0, 64, 200_000)
    counts = Counter(x.tolist())
    assert coding.entropy(counts.values()) == pytest.approx(6, abs=1e-3)
    assert abs(coding.saving(counts)) < 0.01
    assert coding.gain(list(x[:20_000].reshape(200, 100))) < 0.01


def test_the_correction_is_that_of_miller_and_madow():
    counts = [5, 3, 2]
    plain = -sum(c / 10 * math.log2(c / 10) for c in counts)
    assert coding.entropy(counts, corrected=False) == pytest.approx(plain)
    assert coding.entropy(counts) == pytest.approx(plain + 2 / (20 * math.log(2)))


@pytest.mark.parametrize("seed", range(8))
def test_3_huffman_is_optimal_prefix_free_and_comes_back(seed):
    x = np.random.default_rng(seed).zipf(1.3 + seed / 10, 500) % 50
    counts = Counter(x.tolist())
    code = coding.huffman(counts)
    length, bits = coding.mean_length(counts, code), coding.entropy(counts.values(), corrected=False)
    assert bits - 1e-9 <= length < bits + 1
    assert length * 500 == pytest.approx(slow_huffman_bits(counts.values()))
    assert not any(a != b and b.startswith(a) for a, b in itertools.permutations(code.values(), 2))
    assert coding.decode(coding.encode(x.tolist(), code), code) == x.tolist()


def test_one_type_takes_one_bit():
    assert coding.huffman({"a": 7}) == {"a": "0"} and coding.saving({"a": 7}) == 0
    assert coding.saving({"a": 1, "b": 1}) == 0


def test_4_shuffling_leaves_counts_and_destroys_what_the_token_before_says():
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 2, (60, 100))
    corpus = [(steps[i].cumsum() * 3) % 17 for i in range(60)]  # the next token is one of two
    mixed = shuffled(corpus, 1)
    a, b = ngrams(corpus, 1), ngrams(mixed, 1)
    assert a == b and coding.saving(a) == coding.saving(b)
    assert coding.gain(corpus) > 2.5 and coding.gain(mixed) < 0.1
    assert coding.deflated(corpus) < coding.deflated(mixed)


def test_n_gram_probabilities_sum_to_one_and_follow_the_formula():
    corpus = [np.array([0, 1, 0, 2, 0, 1]), np.array([2, 2, 1])]
    model = coding.NGrams(corpus, 2, 4)
    for past in ([], [0], [1], [3], [2, 0]):
        assert sum(model.probability(past, t) for t in range(4)) == pytest.approx(1)
    single = lambda t: (Counter([0, 1, 0, 2, 0, 1, 2, 2, 1])[t] + 3 / 4) / 12  # noqa: E731
    assert model.probability([], 1) == pytest.approx(single(1))
    assert model.probability([0], 1) == pytest.approx((2 + 2 * single(1)) / 5)  # after 0: 1, 2, 1
    assert model.probability([3], 1) == pytest.approx(single(1))  # 3 was never seen
