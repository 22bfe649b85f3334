"""EAS's search; numbers are the lines of what it must show."""

import math

import pytest
import torch

from laconic.methods.weights.eas.network import Adapters, applied
from laconic.methods.weights.eas.search import Search, search


def test_5_updates_equal_a_slow_reference():
    for rule in ("softmax", "sigmoid"):
        state = Search(range(1, 7), 2, lr=0.5, rule=rule)
        state.scores += torch.tensor([0.1, -0.2, 0.0, 0.3, 0.05, -0.1])
        before = state.scores.tolist()
        subsets, losses = [(1, 3), (3, 4), (2, 5)], [0.4, 1.2, 0.7]
        if rule == "softmax":
            total = sum(math.exp(10 * s) for s in before)
            p = [math.exp(10 * s) / total for s in before]
        else:
            p = [1 / (1 + math.exp(-s)) for s in before]
        expected, mean = list(before), sum(math.exp(-x) for x in losses) / 3
        for subset, value in zip(subsets, losses, strict=True):
            for layer in subset:
                expected[layer - 1] += 0.5 * (math.exp(-value) - mean) * p[layer - 1] * (1 - p[layer - 1])
        state.update(subsets, losses)
        assert state.scores.tolist() == pytest.approx(expected, abs=1e-12)
        assert state.scores[5] == before[5]  # layer 6 was in no subset


def test_5_equal_rewards_change_nothing():
    state = Search(range(1, 7), 2)
    state.update([(1, 2), (2, 3), (5, 6)], [0.7, 0.7, 0.7])
    assert state.scores.tolist() == pytest.approx([0.0] * 6, abs=1e-12)


def test_draws_are_distinct_and_follow_p():
    state = Search(range(10, 18), 3, seed=1)
    state.scores[2] = 0.5
    drawn = [state.draw() for _ in range(300)]
    assert all(len(set(subset)) == 3 and set(subset) <= set(range(10, 18)) for subset in drawn)
    assert sum(12 in subset for subset in drawn) > 290
    assert Search(range(10, 18), 3, seed=1).draw() == Search(range(10, 18), 3, seed=1).draw()
    assert len(set(Search(range(1, 4), 2).draw_distinct(5))) == 3
    assert Search(range(1, 9), 2).best() == (1, 2)


@pytest.fixture(scope="module")
def half(make_llama):
    """Six layers, three of whose attentions contribute next to nothing; inputs, and the model's own output for them."""
    model = make_llama(layers=7, seed=3)
    for i in (2, 4, 5):
        model.model.layers[i].self_attn.o_proj.weight.mul_(1e-4)
    ids = torch.randint(1, 97, (64, 16), generator=torch.Generator().manual_seed(0))
    return model, ids, model(ids).logits.log_softmax(-1)


def distilled(half):
    model, ids, said = half

    def batches(step):
        at = slice(8 * (step % 6), 8 * (step % 6) + 8)
        return ids[at], said[at]

    def loss(model, batch):
        new = model(batch[0]).logits.log_softmax(-1)
        return torch.nn.functional.kl_div(new, batch[1], reduction="none", log_target=True).sum(-1).mean()

    return model, batches, loss, (ids[48:], said[48:])


@pytest.mark.slow
def test_6_idle_attentions_are_found(half):
    model, batches, loss, held_out = distilled(half)
    torch.manual_seed(0)
    both = Adapters.of(model, width=4, skip_width=4, both=True)
    state = Search(range(1, 7), 3, lr=2.0, seed=0)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    found = search(model, both, state, batches, loss, steps=150, turn=1, subsets=6, warmup=5)
    assert found == (2, 4, 5)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    plain = Adapters.of(model, width=4, skip_width=4, both=True).eval()

    def lost(skip):
        with torch.no_grad(), applied(model, plain, skip):
            return float(loss(model, held_out))

    drawn = Search(range(1, 7), 3, seed=4)
    others = [subset for subset in drawn.draw_distinct(6) if subset != found]
    assert all(lost(subset) > 10 * lost(found) for subset in others)


@pytest.mark.parametrize(("given", "message"), [({"k": 6}, "k=6"), ({"k": 2, "rule": "greedy"}, "choose 'softmax'")])
def test_settings_that_make_no_sense(given, message):
    with pytest.raises(ValueError, match=message):
        Search(range(1, 7), **given)
