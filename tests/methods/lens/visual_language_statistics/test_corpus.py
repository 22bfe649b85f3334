"""n-grams in one and two dimensions against loops, and null models."""

from collections import Counter

import numpy as np
import pytest

from laconic.methods.lens.visual_language_statistics.corpus import (
    blocks,
    independent,
    ngrams,
    of_equal_size,
    row_shuffled,
    shuffled,
    tokens,
    uniform,
)

GRIDS = [np.random.default_rng(i).integers(0, 5, (4, 6)) for i in range(5)]


def test_n_grams_are_those_of_a_loop():
    for n in (1, 2, 3, 4):
        slow = Counter(tuple(g.ravel()[i : i + n].tolist()) for g in GRIDS for i in range(24 - n + 1))
        assert ngrams(GRIDS, n) == slow
    assert ngrams([np.array([1, 2])], 4) == Counter()


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (2, 1), (2, 2)])
def test_blocks_are_those_of_a_loop(rows, columns):
    slow = Counter(
        tuple(g[y : y + rows, x : x + columns].ravel().tolist())
        for g in GRIDS
        for y in range(4 - rows + 1)
        for x in range(6 - columns + 1)
    )
    assert blocks(GRIDS, rows, columns) == slow
    with pytest.raises(ValueError, match=r"shape \(3,\); blocks need grids"):
        blocks([np.zeros(3, int)], rows, columns)


def test_8_a_transposed_grid_has_other_n_grams_and_the_same_blocks():
    striped = [np.repeat(np.random.default_rng(i).integers(0, 9, (6, 1)), 6, 1) for i in range(20)]
    turned = [g.T for g in striped]
    assert ngrams(striped, 1) == ngrams(turned, 1)
    equal = [sum(n for (a, b), n in ngrams(corpus, 2).items() if a == b) / (20 * 35) for corpus in (striped, turned)]
    assert equal[0] > 30 / 35 - 0.01 and equal[1] < 0.25
    assert blocks(striped, 1, 2) == blocks(turned, 2, 1) and blocks(striped, 2, 1) == blocks(turned, 1, 2)


def test_null_models_have_the_shapes_and_keep_what_they_say():
    for model in (uniform, independent, shuffled, row_shuffled):
        made = model(GRIDS, 3)
        assert [g.shape for g in made] == [g.shape for g in GRIDS]
        assert all(np.array_equal(a, b) for a, b in zip(made, model(GRIDS, 3), strict=True))
        assert any(not np.array_equal(a, b) for a, b in zip(made, GRIDS, strict=True))
    for a, b in zip(GRIDS, shuffled(GRIDS, 3), strict=True):
        assert Counter(a.ravel().tolist()) == Counter(b.ravel().tolist())
    for a, b in zip(GRIDS, row_shuffled(GRIDS, 3), strict=True):
        assert all(sorted(x) == sorted(y) for x, y in zip(a.tolist(), b.tolist(), strict=True))


def test_corpora_are_cut_to_the_smallest():
    a, b = of_equal_size([GRIDS, [np.zeros(10, int)] * 100])
    assert len(tokens(a)) == 120 and len(tokens(b)) == 120
