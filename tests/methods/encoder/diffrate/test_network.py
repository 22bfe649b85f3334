"""Proxies and the encoder in which nothing is removed. "line n" is what the card must show."""

import pytest
import torch
from helpers.encoder_by_hand import attention as attention_by_hand
from helpers.encoder_by_hand import encode, sharp_vlm
from helpers.vision_tools import inputs

from laconic.methods.encoder.diffrate.network import EPS, Proxies, Proxy, Soft, attention, layer_step, merged, ranks
from laconic.methods.encoder.diffrate.schedule import Schedule, macs


def proxy(most=12, least=3, granularity=2, extra=1):
    torch.manual_seed(0)
    made = Proxy(most, least, granularity, extra)
    made.logits.data = torch.randn_like(made.logits)
    return made


def test_keep_probabilities_fall_with_the_rank_and_sum_to_the_mean_count():
    """line 3"""
    made = proxy()
    pi = made.keeping(torch.arange(14)).detach()
    assert pi[0] == pytest.approx(1.0) and bool((pi[1:] <= pi[:-1] + 1e-7).all()) and pi[13] == 0
    mean = float((made.candidates * made.logits.detach().softmax(-1)).sum())
    assert float(pi.sum()) == pytest.approx(mean + 1, rel=1e-6)
    slow = [
        sum(float(p) for c, p in zip(made.candidates, made.logits.detach().softmax(-1), strict=True) if c + 1 > r)
        for r in range(14)
    ]
    torch.testing.assert_close(pi, torch.tensor(slow))


def test_the_count_is_whole_and_has_the_gradient_of_the_mean():
    made = proxy()
    count = made.count()
    mean = (made.candidates * made.logits.softmax(-1)).sum()
    assert float(count) == float(mean.ceil()) + 1 == int(count)
    (got,) = torch.autograd.grad(count, made.logits)
    (want,) = torch.autograd.grad(mean, made.logits)
    torch.testing.assert_close(got, want)


def test_masks_are_zero_and_one_with_the_gradient_of_probabilities():
    made, r = proxy(), torch.arange(13)[None]
    mask, k = made.mask(r, 11), int(made.count())
    assert mask[0].tolist() == pytest.approx([1.0] * k + [0.0] * (11 - k) + [1.0] * 2, abs=1e-6)
    weight = torch.randn(1, 13)
    (got,) = torch.autograd.grad((mask * weight).sum(), made.logits)
    (want,) = torch.autograd.grad((made.keeping(r) * weight).sum(), made.logits)
    torch.testing.assert_close(got, want)


def test_candidates_end_at_the_least():
    assert Proxy(12, 3, 4, 0).candidates.tolist() == [12, 8, 4, 3] and Proxy(12, 12, 4, 0).candidates.tolist() == [12]


def random_proxies(patches=20, left=5, layers=4, cls=1):
    torch.manual_seed(1)
    made = Proxies(patches, left, layers, 2, cls)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter)
    return made


def test_the_price_asks_for_fewer_tokens_when_too_many_run():
    """line 4: a step against the gradient of (macs - target)^2 lowers mean counts, and finite differences agree"""
    made = random_proxies()
    cost = made.macs(8, 32)
    (cost / 1000 - 1).square().backward()
    for one in [*made.prune, *made.merge]:
        before = float((one.candidates * one.logits.softmax(-1)).sum())
        after = float((one.candidates * (one.logits - 1e-3 * one.logits.grad).softmax(-1)).sum())
        assert after < before or one.logits.grad.abs().max() == 0
    assert all(float(one.logits.grad.abs().sum()) > 0 for one in made.merge)


def test_the_gradient_of_the_cost_is_that_of_the_smallest_count():
    """line 4: one layer at a time, by finite differences of the formula with the count as a real number"""
    made = random_proxies(layers=3)
    width, inner = 8, 32

    def smooth(prune):
        m = float(made.counts(1)[1])
        n1 = min(prune, m)
        first = 4 * 21 * width**2 + 2 * 21**2 * width + 2 * 21 * width * inner
        second = 4 * 21 * width**2 + 2 * 21**2 * width + 2 * n1 * width * inner
        third = 4 * n1 * width**2 + 2 * n1**2 * width + 2 * 6 * width * inner
        return first + second + third

    k = float(min(made.counts(1)[0], made.counts(1)[1]))
    made.merge[0].logits.data[0] = 9.0  # merging leaves everything, so pruning decides
    k = float(made.counts(1)[0])
    assert float(made.macs(width, inner)) == pytest.approx(smooth(k))
    slope = (smooth(k + 0.01) - smooth(k - 0.01)) / 0.02
    (got,) = torch.autograd.grad(made.macs(width, inner), made.prune[0].logits)
    (mean,) = torch.autograd.grad(made.prune[0].count(), made.prune[0].logits)
    torch.testing.assert_close(got, slope * mean, rtol=1e-3, atol=1e-3)


def test_the_cost_is_that_of_the_whole_counts():
    made = random_proxies()
    assert float(made.macs(8, 32)) == macs(made.schedule().counts(21), 8, 32)
    assert made.schedule().prune[0] == made.schedule().merge[0] == 21, "the first layer removes nothing"
    assert made.schedule().merge[-1] == 6, "the last one leaves what the budget says"


def test_nothing_removed_is_the_plain_encoder():
    """line 1: the masked path"""
    model, pixels = sharp_vlm(), inputs([(3, 9)])["pixel_values"]
    want = encode(model, pixels[0])
    soft = Soft(want[0][0][None], torch.ones(1, 145), torch.ones(1, 145))
    for i, layer in enumerate(model.model.vision_tower.encoder.layers):
        soft = layer_step(layer, soft, (None, None), (145, 145), True)
        torch.testing.assert_close(soft.x[0], want[i + 1][0], rtol=1e-4, atol=1e-4)
    assert soft.active == 145


def test_attention_with_masks_equals_attention_without_the_hidden_tokens():
    model = sharp_vlm()
    layer = model.model.vision_tower.encoder.layers[0]
    torch.manual_seed(0)
    x, size = torch.randn(1, 6, 192), torch.rand(1, 6) + 1
    mask = torch.tensor([[1.0, 1, 0, 1, 0, 1]])
    added, weights = attention(layer, Soft(x, size, mask))
    there = mask[0] > 0
    want, *_ = attention_by_hand(layer, x[0, there], size[0, there].log())
    torch.testing.assert_close(added[0, there], want, rtol=1e-3, atol=1e-4)
    assert float(weights[0, :, there][..., ~there].max()) < 10 * EPS
    torch.testing.assert_close(weights[0, :, ~there].sum(-1), torch.ones(4, 2), rtol=1e-3, atol=1e-3)
    for i in (2, 4):  # a hidden token attends to itself and to what is there
        alone = there.clone()
        alone[i] = True
        want, *_ = attention_by_hand(layer, x[0, alone], size[0, alone].log())
        torch.testing.assert_close(added[0, i], want[alone[:i].sum()], rtol=1e-3, atol=1e-4)


def test_ranks_put_cls_first_and_hidden_tokens_last():
    weights = torch.zeros(1, 2, 4, 4)
    weights[0, :, 0] = torch.tensor([0.1, 0.2, 0.6, 0.9])
    mask = torch.tensor([[1.0, 1, 1, 0]])
    assert ranks(weights, mask, True)[0].tolist() == [0, 2, 1, 3]
    weights[0, :, 3] = 1.0  # a hidden row's attention does not count
    weights[0, :, 1] = torch.tensor([0.9, 0.0, 0.0, 0.0])
    assert ranks(weights, mask, False)[0].tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("cls", [True, False])
def test_merging_equals_the_loop(cls):
    """line 5: every source goes to one token that stays, CLS never receives"""
    torch.manual_seed(3)
    x, size, rank = (
        torch.randn(2, 7, 5),
        torch.rand(2, 7) + 1,
        torch.stack([torch.arange(7), torch.tensor([0, 3, 1, 2, 6, 5, 4])]),
    )
    values, sizes = merged(x, size, rank, 6, 3, cls)
    for v in range(2):
        order = rank[v].argsort().tolist()
        groups, mass = {j: [j] for j in order[:3]}, {j: float(size[v, j]) for j in order[:3]}
        for i in order[3:6]:
            near = {j: float(torch.cosine_similarity(x[v, i], x[v, j], 0)) for j in order[(1 if cls else 0) : 3]}
            j = max(near, key=near.get)
            groups[j].append(i)
            mass[j] += near[j] * float(size[v, i])
        for j, group in groups.items():
            torch.testing.assert_close(values[v, j], x[v, group].mean(0))
            assert float(sizes[v, j]) == pytest.approx(max(1.0, mass[j]), rel=1e-5)
        assert torch.equal(values[v, order[3:]], x[v, order[3:]]), "sources stay in the tensor"
        if cls:
            assert len(groups[order[0]]) == 1


def test_schedules_of_proxies_are_schedules():
    assert isinstance(random_proxies(cls=0).schedule(), Schedule)
