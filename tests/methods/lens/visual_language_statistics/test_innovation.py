"""New types: curves against loops, and processes whose rates are known."""

import math

import numpy as np
import pytest

from laconic.methods.lens.visual_language_statistics import innovation
from laconic.methods.lens.visual_language_statistics.zipf import power_law


def test_the_curve_is_that_of_a_loop():
    corpus = [np.random.default_rng(i).integers(0, 30, 7) for i in range(12)]
    slow = [len({t for d in corpus[: k + 1] for t in d.tolist()}) for k in range(12)]
    assert innovation.types_by_document(corpus).tolist() == slow
    assert innovation.documents_until(corpus) == next(k for k, v in enumerate(slow, 1) if v >= 0.95 * slow[-1])


def test_2_uniform_types_are_all_seen_after_v_ln_v_tokens():
    v = 200
    corpus = list(np.random.default_rng(0).integers(0, v, (400, 50)))
    curve = innovation.types_by_document(corpus)
    seen = (int(np.argmax(curve == v)) + 1) * 50
    assert 0.5 * v * math.log(v) < seen < 2.5 * v * math.log(v)
    assert innovation.yule_simon(corpus)["rate"] == pytest.approx(v / 20_000)


def test_simons_process_has_the_rate_and_the_exponent_of_his_model():
    made = innovation.simon(60_000, 0.2, 0)
    found = innovation.yule_simon([made[:30_000], made[30_000:]])
    assert found["rate"] == pytest.approx(0.2, abs=0.01) and found["exponent"] == pytest.approx(2.25, abs=0.02)
    counts = np.unique(made, return_counts=True)[1]
    assert power_law(counts).alpha == pytest.approx(found["exponent"], abs=0.15)


def test_heaps_is_the_slope_of_types_over_tokens():
    every_new = list(np.arange(1000).reshape(100, 10))
    assert innovation.heaps(every_new) == pytest.approx(1)
    assert innovation.heaps([np.arange(10)] * 20) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="at least two"):
        innovation.heaps([np.arange(3)])
