"""Rows that stay while all others are rounded: which, how many, and what they are worth."""

import pytest
import torch
from helpers.session_tools import assert_same_state, state
from helpers.thinking import tiny_thinker

from laconic.methods.lens.reasoning_meets_compression.behaviours import Response
from laconic.methods.lens.reasoning_meets_compression.protection import drawn, loss, rounded, spared, worth
from laconic.weights.matrices import matrices

MODEL = tiny_thinker()
MAPS = {name: linear for layer in matrices(MODEL, "x") for name, linear in layer.items()}
ALL = sum(linear.weight.numel() for linear in MAPS.values())


def weights_of(rows):
    return sum(int(own.sum()) * MAPS[name].in_features for name, own in rows.items())


def test_the_best_rows_per_weight_fill_the_share():
    scores = [torch.zeros(linear.out_features) for linear in MAPS.values()]
    names = list(MAPS)
    scores[names.index("model.layers.0.mlp.down_proj")][3] = 5.0  # 64 weights
    scores[names.index("model.layers.1.self_attn.q_proj")][7] = 4.0  # 32 weights: more for each
    rows = spared(MAPS, scores, 32.5 / ALL)
    assert weights_of(rows) == 32 and bool(rows["model.layers.1.self_attn.q_proj"][7])
    rows = spared(MAPS, scores, 97 / ALL)
    assert weights_of(rows) == 96 and bool(rows["model.layers.0.mlp.down_proj"][3])
    assert weights_of(spared(MAPS, scores, 0)) == 0 and weights_of(spared(MAPS, scores, 1)) == ALL


def test_random_rows_are_as_many_weights_and_follow_from_the_seed():
    one, again, other = (drawn(MAPS, 0.1, seed) for seed in (1, 1, 2))
    assert 0.09 * ALL < weights_of(one) <= 0.1 * ALL
    assert all(torch.equal(one[name], again[name]) for name in MAPS)
    assert any(not torch.equal(one[name], other[name]) for name in MAPS)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_all_but_the_rows_that_stay_are_on_the_grid_and_come_back(bits):
    before, name = state(MODEL), "model.layers.0.mlp.up_proj"
    old = MAPS[name].weight
    rows = torch.zeros(64, dtype=torch.bool)
    rows[5] = True
    with rounded(MODEL, MAPS, bits, 16, {name: rows}):
        new = MAPS[name].weight
        assert torch.equal(new[5], old[5])
        groups = new[6].unflatten(0, (2, 16))
        assert all(len(group.unique()) <= 2**bits for group in groups) and not torch.equal(new[6], old[6])
        error = (new[6] - old[6]).abs().unflatten(0, (2, 16)).amax(-1)
        step = old[6].unflatten(0, (2, 16)).abs().amax(-1) * 2 / (2**bits - 1)
        assert (error <= 0.52 * step).all()
    assert_same_state(MODEL, before)


def test_the_loss_is_the_mean_over_the_tokens_of_all_answers():
    drawn_ids = torch.Generator().manual_seed(1)
    answers = [
        Response(torch.randint(7, 60, (n,), generator=drawn_ids).tolist(), prompt, {}) for n, prompt in ((9, 4), (20, 3))
    ]
    each = []
    for one in answers:
        with torch.no_grad():
            said = MODEL(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
        each += [-float(said[t - 1, one.ids[t]]) for t in range(one.prompt, len(one.ids))]
    assert len(each) == 5 + 17 and loss(MODEL, answers) == pytest.approx(sum(each) / 22, rel=1e-5)


def test_what_matters_is_worth_more_than_what_does_not():
    """Rows whose rounding changes nothing, because they are on the grid already, are worth nothing."""
    drawn_ids = torch.Generator().manual_seed(0)
    answers = [Response(torch.randint(7, 60, (24,), generator=drawn_ids).tolist(), 4, {}) for _ in range(2)]
    scores = [linear.weight.abs().amax(1) for linear in MAPS.values()]
    found = worth(MODEL, MAPS, scores, answers, 1.0, 2, 16, 2)
    assert found["top"] == found["random"][0] == found["as it is"] == pytest.approx(loss(MODEL, answers))
    none = worth(MODEL, MAPS, scores, answers, 0.0, 2, 16, 1)
    assert none["top"] == none["all rounded"] == none["random"][0] != none["as it is"]
    some = worth(MODEL, MAPS, scores, answers, 0.3, 2, 16, 2)["random"]
    assert some[0] != some[1]
