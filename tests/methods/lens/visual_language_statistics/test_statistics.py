"""All statistics together: nulls, corpora of one size, and what cannot be judged."""

import json

import numpy as np
import pytest

from laconic.methods.lens.visual_language_statistics import compare, stats
from laconic.methods.lens.visual_language_statistics.statistics import grammar_gain


def grids(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return [np.repeat(rng.integers(0, 40, (6, 1)), 6, 1) for _ in range(n)]


def test_4_shuffling_changes_what_order_says_and_nothing_else():
    found = stats(grids())
    null = found["null"]["shuffled"]
    for name in ("tokens", "types", "entropy", "huffman_saving", "innovation"):
        assert found[name] == null[name]
    assert found["zipf"]["1"] == null["zipf"]["1"] and found["zipf"]["2"] != null["zipf"]["2"]
    assert found["bigram_gain"] > null["bigram_gain"] + 0.5
    assert set(found["null"]) == {"uniform", "independent", "shuffled", "row_shuffled"} and "1x2" in found["zipf_blocks"]
    assert "row_shuffled" not in stats([g.ravel() for g in grids()])["null"]
    json.dumps(found, allow_nan=False)


def test_corpora_are_compared_at_one_size():
    found = compare({"a": grids(30), "b": grids(90, 1), "c": [g.ravel() for g in grids(60, 2)]})
    assert {c["tokens"] for c in found["corpora"].values()} == {30 * 36}
    assert set(found["distance"]) == {"a / b", "a / c", "b / c"} and all(0 <= d <= 1 for d in found["distance"].values())


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="3 documents, none of them empty: statistics need at least four"):
        stats(grids(3))
    with pytest.raises(ValueError, match="statistics need at least four"):
        stats([*grids(5), np.zeros(0, int)])
    with pytest.raises(ValueError, match="no document has 50 tokens"):
        grammar_gain(grids(), length=50)


def test_a_grammar_is_judged_beside_bigrams():
    found = grammar_gain(grids(), length=4, words=8, inner=2, leaves=3, steps=3)
    assert found["length"] == 4 and 1 < found["grammar"] < 100 and 1 < found["bigram"] < 10
