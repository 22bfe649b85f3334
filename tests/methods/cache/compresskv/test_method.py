"""CompressKV, line by line of its card's "must show"."""

import random

import pytest
import torch
from helpers.reference import left_padding, observe, slow_logits, slow_top
from helpers.slow_scores import slow_pool

import laconic
from laconic.artifact import Artifact
from laconic.cache.scores import window_scores
from laconic.errors import ArtifactError
from laconic.fit.needles import trials
from laconic.methods.cache.compresskv.method import CompressKV, budgets

GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}


@pytest.fixture(scope="module")
def shipped_model(lm):
    return lm[0]


def attached(model, **parameters):
    method = CompressKV(**parameters)
    method.attach(model)
    return method


def slow_scores(obs, heads, window=8, kernel=5):
    """Step D: rows of the heads' last queries, summed, pooled per head, averaged over the heads: [B][n - w]."""
    n, t = obs.keys.shape[2], obs.new
    rows = slow_logits(obs.queries, obs.keys, obs.scale, obs.bias, past=n - t).softmax(-1)
    out = []
    for b in range(obs.queries.shape[0]):
        pooled = []
        for head in heads:
            summed = [sum(float(rows[b, head, t - window + i, j]) for i in range(window)) for j in range(n - window)]
            pooled.append(slow_pool(summed, kernel, "avg"))
        out.append([sum(head[j] for head in pooled) / len(heads) for j in range(n - window)])
    return out


# line 1
def test_a_budget_that_holds_everything_changes_nothing(llama, prompt):
    ids = prompt(2, 40)
    want = llama.generate(ids, **GREEDY)
    with laconic.compress(llama, CompressKV(tokens=40, heads="all", layer_errors=[0.1, 0.2, 0.3, 0.4])) as session:
        assert torch.equal(llama.generate(ids, **GREEDY), want)
    assert not any(layer.evicted for layer in session.cache.compressed())


# line 2
@pytest.mark.parametrize("n", [40, 41])
@pytest.mark.parametrize("heads", [[2], [3, 0], [1, 0, 2, 3]])
def test_kept_entries_equal_the_loop(llama, n, heads):
    method = attached(llama, tokens=20, heads=[heads] * 4)
    seen = observe(b=1, n=n, targets=[20])
    kept = method.select(seen).index
    want = slow_top(slow_scores(seen, heads)[0], 20 - 8) + list(range(n - 8, n))
    for head in range(2):
        assert kept[0, head].tolist() == want


def test_padding_votes_for_nothing_and_is_not_kept(llama):
    n, pad = 41, 15
    method = attached(llama, tokens=18, heads=[[2, 1]] * 4)
    both = method.select(observe(n=n, valid=left_padding(n, pad, 0), targets=[18, 18])).index
    seen = observe(n=n, valid=left_padding(n, pad, 0), targets=[18, 18])
    alone = method.score(seen)[0, :, pad:]
    assert int(both[0].min()) >= pad
    want = slow_top(alone[0, :-8].tolist(), 18 - 8)
    assert both[0, 0].tolist() == [pad + j for j in want] + list(range(n - 8, n))


# line 3
def test_all_kv_heads_share_the_set_and_layers_have_their_budgets(llama, prompt):
    errors, n = [0.1, 0.2, 0.6, 0.1], 60
    with laconic.compress(
        llama, CompressKV(tokens=24, heads="L0H1+L1H3+L2H0+L3H2", layer_errors=errors, floor=16)
    ) as session:
        llama(prompt(1, n))
    want = budgets(tuple(errors), 24, 16, n)
    for layer in range(4):
        first, second = (session.kept(layer, head) for head in range(2))
        assert torch.equal(first, second) and len(first) == min(n, want[layer])
        assert first[-8:].tolist() == list(range(n - 8, n))
    assert session.stats.achieved == pytest.approx(24 / n)


# line 4
def test_layer_budgets_add_up_and_stay_between_floor_and_ceiling():
    rng = random.Random(0)
    for _ in range(50):
        raw = [rng.random() ** 4 + 1e-3 for _ in range(rng.randint(2, 32))]
        errors, mean = tuple(e / sum(raw) for e in raw), rng.choice([32, 33, 128, 700])
        found = budgets(errors, mean)
        assert sum(found) == mean * len(errors)
        assert all(32 <= b <= 3 * mean for b in found)
        seen = mean + rng.randint(0, mean)
        within = budgets(errors, mean, 32, seen)
        assert sum(within) == mean * len(errors) and max(within) <= seen
    assert budgets((0.25,) * 4, 100) == (100,) * 4
    assert budgets((1.0, 0.0), 10) == (10, 10)  # the floor is at most the mean


def slow_budgets(errors, mean, low, high):
    """Step C, one entry at a time."""
    total, layers = mean * len(errors), range(len(errors))
    b = [min(high, max(low, low + round(errors[i] * (total - low * len(errors))))) for i in layers]
    moved = True
    while sum(b) != total and moved:
        moved = False
        short = sum(b) < total
        for i in sorted(layers, key=lambda i: (-errors[i], i), reverse=not short):
            if sum(b) != total and (b[i] < high if short else b[i] > low):
                b[i] += 1 if short else -1
                moved = True
    return tuple(b)


def test_layer_budgets_equal_the_loop():
    rng = random.Random(1)
    for _ in range(30):
        raw = [rng.random() ** 6 + 1e-3 for _ in range(rng.randint(2, 12))]
        errors, mean = tuple(e / sum(raw) for e in raw), rng.randint(32, 300)
        assert budgets(errors, mean) == slow_budgets(errors, mean, 32, 3 * mean)


def test_the_worked_example_of_the_published_constants():
    data = Artifact.load("compresskv-llama-3.1-8b-instruct").data
    found = budgets(tuple(data["layer_errors"]), 256)
    assert sum(found) == 8192 and found[0] == 164
    assert (min(found), found.index(min(found))) == (83, 31)
    assert (max(found), found.index(max(found))) == (350, 8)
    assert data["heads"][0] == [11, 25, 23, 27] and len(data["heads"]) == 32


# line 5
def test_all_heads_and_equal_budgets_are_snapkv_with_one_group(make_llama, prompt):
    seen = observe(n=37, h=4, hkv=2, targets=[20, 20])
    method = attached(make_llama(), tokens=20, heads="all")
    mean = window_scores(seen, 8, 5, "avg").mean(1)
    torch.testing.assert_close(method.score(seen)[:, 0] / 8, mean, atol=1e-6, rtol=1e-5)  # a sum over 8 queries
    model = make_llama(kv_heads=1)
    kept = []
    for some in (CompressKV(tokens=20, heads="all"), laconic.SnapKV(tokens=20, window=8)):
        with laconic.compress(model, some) as session:
            model(prompt(2, 50))
        kept.append([session.kept(layer, 0, row).tolist() for layer in range(4) for row in range(2)])
    assert kept[0] == kept[1]


# line 8
def test_the_heads_found_hold_the_needle_better_than_all_heads(lm):
    """Recall of the needle's positions at 16 entries a head, over all layers; not the seed of the calibration."""
    shipped_model, tokenizer = lm
    needle_prompts = list(trials(tokenizer, (256,), depths=4, needles=3, seed=77))

    def share(**heads):
        found = []
        for prompt in needle_prompts:
            with torch.inference_mode(), laconic.compress(shipped_model, CompressKV(tokens=16, **heads)) as session:
                shipped_model(input_ids=torch.tensor([prompt.ids]), logits_to_keep=1)
            kept = [set(session.kept(layer, 0).tolist()) for layer in range(4)]
            found += [len(layer & set(prompt.span)) / len(prompt.span) for layer in kept]
        return sum(found) / len(found)

    best, everybody = share(first_k=1), share(heads="all")
    assert best > everybody + 0.02


def test_first_k_is_clipped_to_the_heads_there_are(llama, shipped_model):
    assert attached(shipped_model, first_k=9)._heads == attached(shipped_model)._heads
    assert [len(row) for row in attached(shipped_model, first_k=2)._heads] == [2] * 4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "laconic fit compresskv"),
        ({"artifact": "compresskv-llama-3.1-8b-instruct"}, "given for 32 layers"),
        ({"heads": "L0H1"}, "at least one head"),
        ({"heads": "all", "layer_errors": [0.5, 0.5]}, "2 layer errors"),
        ({"heads": "all", "layer_errors": [1, 1, 1, 1]}, "add up to 1"),
    ],
)
def test_artifacts_and_heads_that_do_not_fit(llama, parameters, message):
    with pytest.raises(ArtifactError, match=message):
        laconic.compress(llama, CompressKV(**parameters))


def test_parameters_that_make_no_sense():
    for bad in ({"first_k": 0}, {"kernel": 4}, {"window": 0}, {"floor": 0}, {"artifact": "x", "heads": "all"}):
        with pytest.raises(ValueError, match="compresskv"):
            CompressKV(**bad)


def test_an_artifact_by_its_spec(llama, tmp_path, prompt):
    data = {"heads": [[1, 0]] * 4, "layer_errors": [0.25] * 4}
    Artifact.of("compresskv", "measured", llama, data).save(tmp_path / "r.safetensors")
    with laconic.compress(llama, laconic.create_method(f"compresskv:artifact={tmp_path}/r.safetensors,keep=0.5")) as session:
        llama(prompt(1, 40))
    assert session.stats.achieved == 0.5
