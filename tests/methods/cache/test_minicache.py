"""MiniCache, line by line of what it must show."""

import math

import pytest
import torch
from helpers.reference import slow_attend
from helpers.slow_minicache import merge, restored, slow_merge, slow_retained, steps, vectors

import laconic
from laconic.cache.parts.pair import PairPart
from laconic.methods.cache.minicache import MiniCache, slerp
from laconic.tasks.text import corpus


# line 1
@pytest.mark.parametrize("parameters", [{"start": 4}, {"gamma": 1.0}, {"gamma": 1.0, "retention": "topk"}, {"keep": 1.0}])
def test_no_pairs_or_everything_retained_changes_nothing(llama, prompt, parameters):
    ids, more = prompt(2, 40), prompt(2, 8, seed=1)
    want, _ = steps(llama, ids, MiniCache(keep=1.0), more)
    got, session = steps(llama, ids, MiniCache(buffer=1, **parameters), more)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-6)
    pairs = [part for layer in session.cache.compressed() for part in layer.parts if isinstance(part, PairPart)]
    assert len(pairs) == (2 if "gamma" in parameters else 0)


# line 2
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_at_the_ends_one_layer_is_exact(t):
    first, second = vectors()
    merged, _ = merge(MiniCache(t=t, gamma=0.0), first, second)
    assert merged.places.shape[1] == 0
    exact, other = (restored(merged, 1), second), (restored(merged, 0), first)
    if t == 0:
        exact, other = other, exact
    torch.testing.assert_close(*exact, atol=1e-5, rtol=1e-5)
    assert (other[0] - other[1]).norm() > 0.05 * other[1].norm()


# line 3
@pytest.mark.parametrize("t", [0.0, 0.3, 0.6, 1.0])
def test_unit_directions_true_norms_and_angles(t):
    first, second = torch.randn(2, 2, 25, 8), torch.randn(2, 2, 25, 8) * 3
    directions, norms, distance = slerp(first, second, t)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 2, 25), atol=1e-5, rtol=0)
    for x, r in zip((first, second), norms, strict=True):
        torch.testing.assert_close((directions * r[..., None]).norm(dim=-1), x.norm(dim=-1), atol=1e-4, rtol=1e-5)

    def angle(a, b):
        cosine = (a.double() * b.double()).sum(-1) / a.double().norm(dim=-1) / b.double().norm(dim=-1)
        return torch.arccos(cosine.clamp(-1, 1))

    omega = angle(first, second)
    torch.testing.assert_close(angle(directions, second), (1 - t) * omega, atol=1e-3 if t == 1 else 1e-4, rtol=0)
    torch.testing.assert_close(angle(directions, first), t * omega, atol=1e-3 if t == 0 else 1e-4, rtol=0)
    torch.testing.assert_close(distance.double(), omega.mean(1) / math.pi, atol=1e-5, rtol=0)


def test_directions_and_distance_equal_the_loop():
    first, second = vectors(seed=3)
    first[0, 0, 4], second[0, 0, 4] = second[0, 0, 4] * 2, second[0, 0, 4]  # no angle
    directions, norms, distance = slerp(first, second, 0.6)
    want = slow_merge(first[0].double(), second[0].double(), 0.6)
    torch.testing.assert_close(directions[0].double(), torch.stack([torch.stack(row) for row in want[0]]), atol=1e-5, rtol=0)
    for i in (0, 1):
        torch.testing.assert_close(norms[i][0].double(), torch.tensor(want[1][i], dtype=torch.float64), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(distance[0].double(), torch.tensor(want[2], dtype=torch.float64), atol=1e-4, rtol=0)


# line 4
@pytest.mark.parametrize("t", [0.0, 0.4, 0.6, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.05])
def test_layers_that_differ_in_length_only_are_restored(t, gamma):
    first = torch.randn(2, 2, 30, 8)
    second = first * (0.1 + 3 * torch.rand(2, 2, 30, 1))
    merged, _ = merge(MiniCache(t=t, gamma=gamma), first, second)
    torch.testing.assert_close(restored(merged, 0), first, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(restored(merged, 1), second, atol=1e-5, rtol=1e-5)


# line 5
@pytest.mark.parametrize("gamma", [0.05, 0.3, 0.7])
def test_retained_rows_equal_the_threshold_loop(gamma):
    first, second = vectors(n=60, seed=2)
    merged, limits = merge(MiniCache(gamma=gamma), first, second)
    retained, threshold = slow_retained(slow_merge(first[0].double(), second[0].double(), 0.6)[2], gamma)
    assert merged.places[0].tolist() == retained and retained
    assert float(limits[0, 2]) == pytest.approx(threshold, abs=1e-5)
    for i, x in enumerate((first, second)):
        assert torch.equal(restored(merged, i)[:, :, retained], x[:, :, retained])


def test_topk_retains_a_share():
    first, second = vectors(b=2, n=60, seed=2)
    real = torch.ones(2, 60, dtype=torch.bool)
    real[0, :20] = False
    merged, _ = merge(MiniCache(gamma=0.1, retention="topk"), first, second, real)
    for b, count in ((0, 4), (1, 6)):
        distance = slow_merge(first[b].double(), second[b].double(), 0.6)[2]
        best = sorted((j for j in range(60) if real[b, j]), key=lambda j: -distance[j])[:count]
        assert set(best) <= set(merged.places[b].tolist())
        for j in merged.places[b].tolist():  # filler of the shorter row is what would be restored anyway
            at = merged.places[b].tolist().index(j)
            want = first[b, :, j] if j in best else merged.directions[b, :, j] * merged.norms[0][b, :, j, None]
            torch.testing.assert_close(merged.exact[0][b, :, at], want)


def test_a_planted_outlier_is_retained_and_nearly_nothing_else():
    first, second = vectors(n=400, outliers=[7])
    merged, _ = merge(MiniCache(), first, second)
    assert merged.places[0].tolist() == [7]


# line 6
def test_error_ordering_where_neighbouring_layers_are_similar():
    """The premise, synthetically: directions with a cosine of about 0.65 or more, lengths that differ, a few opposite
    tokens. On testbed/lm neighbouring layers are at right angles and the order does not hold (see
    docs/systems/minicache.md)."""
    g = torch.Generator().manual_seed(1)
    n, d, outliers = 80, 16, [0, 30, 50, 60]
    errors = dict.fromkeys(("retention", "slerp", "mean"), 0.0)
    keys, values = (vectors(n=n, d=d, seed=seed, outliers=outliers) for seed in (4, 5))
    queries = torch.randn(2, 1, 4, 8, d, generator=g) * 1.5
    for name, gamma in (("retention", 0.05), ("slerp", 0.0), ("mean", None)):
        pairs = []
        for first, second in (keys, values):
            if gamma is None:
                pairs.append([(first + second) / 2] * 2)
            else:
                merged, _ = merge(MiniCache(gamma=gamma), first, second)
                pairs.append([restored(merged, 0), restored(merged, 1)])
        for i in (0, 1):
            want = slow_attend(queries[i], keys[i], values[i], d**-0.5)[0]
            got = slow_attend(queries[i], pairs[0][i], pairs[1][i], d**-0.5)[0]
            errors[name] += float((got - want).norm())
    assert errors["retention"] < 0.95 * errors["slerp"] and errors["slerp"] < 0.95 * errors["mean"]


# line 7
@pytest.mark.parametrize("n", [64, 100])
def test_stored_numbers_equal_the_formula(llama, prompt, record, n):
    with laconic.compress(llama, MiniCache()) as session:
        llama(prompt(1, n))
    d, heads = 8, 2
    numbers, indices = 2 * 2 * n * heads * d, 0  # layers 0 and 1, keys and values
    for which in (1, 2):
        distance = slow_merge(record[2][0][which][0].double(), record[3][0][which][0].double(), 0.6)[2]
        rho = len(slow_retained(distance, 0.05)[0]) / n
        numbers += round(heads * n * (d + 2 + rho * 2 * d))
        indices += round(n * rho)
    assert session.stats.kv_bytes == 4 * numbers + 4 * indices
    assert session.cache.nbytes < 0.87 * session.stats.kv_bytes_full
    dense = [layer.parts[-1] for layer in session.cache.compressed()][2:]
    assert all(part.length == 0 and part.allocated < 20_000 for part in dense)  # the merged tokens are actually freed


# line 8
def language_loss(model, ids, method):
    """Next-token loss of the second half of ids [1, n] after the first half, which has been compressed."""
    half = ids.shape[1] // 2
    with torch.inference_mode(), laconic.compress(model, method) as session:
        model(ids[:, :half])
        logits = model(ids[:, half:], past_key_values=session.cache).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[:-1], ids[0, half + 1 :]))


class Early(MiniCache):
    """Merges only layers 0 and 1."""

    def is_second(self, layer):
        return layer.number == 1


def test_an_early_pair_hurts_more_than_a_deep_one():
    model, tokenizer = laconic.load("testbed/lm")
    text = "\n".join(corpus.lines("prose", held_out=True)[:400])
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    windows = [ids[:, i : i + 512] for i in range(0, 6 * 512, 512)]

    def loss(method):
        return sum(language_loss(model, window, method) for window in windows) / len(windows)

    full, early, deep = loss(MiniCache(keep=1.0)), loss(Early()), loss(MiniCache())
    assert full < deep and early - full > 3 * (deep - full)


# lines 9 and 10
@pytest.mark.parametrize("buffer", [1, 4])
def test_prefill_is_exact_and_decoding_equals_the_rebuilt_cache(llama, prompt, record, buffer):
    ids, more = prompt(2, 40), prompt(2, 9, seed=1)
    want = llama(ids).logits
    got, session = steps(llama, ids, MiniCache(buffer=buffer), more)
    torch.testing.assert_close(got[0], want, atol=1e-5, rtol=1e-5)
    assert (got[-1] - llama(torch.cat([ids, more], 1)).logits[:, -1:]).abs().max() > 1e-3
    scale = 8**-0.5
    for b in range(2):
        true = [[torch.cat([p[i][b] for p in record[layer]], 1).double() for i in (1, 2)] for layer in (2, 3)]
        for step in range(9):
            done = 40 + step // buffer * buffer  # tokens merged when this one is decoded
            for layer in (2, 3):
                whole = []
                for i in (0, 1):
                    directions, norms, distance = slow_merge(true[0][i][:, :done], true[1][i][:, :done], 0.6)
                    threshold = slow_retained(distance[:40], 0.05)[1]
                    x = true[layer - 2][i][:, : 41 + step].clone()
                    for h in range(2):
                        for j in range(done):
                            if distance[j] <= threshold:
                                x[h, j] = directions[h][j] * norms[layer - 2][h][j]
                    whole.append(x[None])
                q, _, _, out = record[layer][1 + step]
                slow = slow_attend(q[b : b + 1], *whole, scale)[0]
                torch.testing.assert_close(out[b : b + 1].double(), slow, atol=1e-4, rtol=1e-4)
    assert [layer.parts[0].length for layer in session.cache.compressed()][2:] == [40 + 9 // buffer * buffer] * 2
