"""The codebook of moving averages against its closed form, and codes that come back to life."""

import pytest
import torch
import torch.nn.functional as F

from laconic.codec.ema_codebook import EMAVQ, perplexity


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def begun(codes=8, width=4, **more):
    torch.manual_seed(0)
    vq = EMAVQ(codes, width, dead=0.0, **more)
    vq(vectors(16, 4, width))
    return vq


def test_6_the_update_is_the_closed_form():
    vq = begun()
    z, counts, sums, codebook = vectors(5, 4, 4, seed=1), vq.counts.clone(), vq.sums.clone(), vq.codebook.clone()
    for number in range(3):
        before = codebook.clone()
        unit = F.normalize(z.flatten(0, 1), dim=-1)
        for k in range(8):
            mine = [v for v in unit if int((before @ v).argmax()) == k]
            counts[k] = 0.99 * counts[k] + 0.01 * len(mine)
            sums[k] = 0.99 * sums[k] + 0.01 * sum(mine, torch.zeros(4))
        total = counts.sum()
        for k in range(8):
            code = sums[k] / ((counts[k] + 1e-5) / (total + 8e-5) * total)
            codebook[k] = code / code.norm()
        vq(z)
        torch.testing.assert_close(vq.counts, counts, msg=f"counts, update {number}")
        torch.testing.assert_close(vq.sums, sums)
        torch.testing.assert_close(vq.codebook, codebook)


def test_6_dead_codes_become_vectors_of_the_batch():
    torch.manual_seed(0)
    vq = EMAVQ(8, 4)
    vq(vectors(16, 4, 4))
    vq.counts[2], vq.sums[2] = 0.0, 0.0
    vq.codebook[2] = F.normalize(torch.tensor([5.0, -5.0, 5.0, -5.0]), dim=0)
    z = F.normalize(vectors(6, 4, 4, seed=2).abs(), dim=-1)  # all far from code 2
    vq(z)
    assert (z.flatten(0, 1) - vq.codebook[2]).norm(dim=-1).min() < 1e-6
    assert float(vq.counts[2]) == pytest.approx(float(vq.counts.sum()) / 8, rel=0.2)


def test_places_with_few_codes_give_more_of_the_vectors_that_revive():
    torch.manual_seed(0)
    vq = EMAVQ(64, 4)
    same, many = F.normalize(torch.ones(4), dim=0), F.normalize(vectors(256, 4), dim=-1)
    z = torch.stack([same.expand(256, 4), many], 1)
    vq(z)
    vq.counts[:32] = 0
    vq.sums[:32] = 0
    vq.codebook[:32] = -same
    vq(z)
    revived = (vq.codebook[:32] - same).norm(dim=-1) < 1e-5
    assert revived.float().mean() > 0.8


def test_nothing_moves_outside_of_training():
    vq = begun()
    state = {name: x.clone() for name, x in vq.state_dict().items()}
    with torch.no_grad():
        vq(vectors(5, 4, 4, seed=3))
    vq.eval()(vectors(5, 4, 4, seed=3))
    assert all(torch.equal(state[name], x) for name, x in vq.state_dict().items())


def test_gradients_go_straight_through_and_the_loss_pulls_to_the_codes():
    vq = begun(spread=0.0)
    z = vectors(5, 4, 4, seed=4).requires_grad_(True)
    found = vq(z)
    unit = F.normalize(z.detach(), dim=-1)
    assert float(found.loss.detach()) == pytest.approx(float((unit - found.vectors.detach()).square().mean()), rel=1e-5)
    (through,) = torch.autograd.grad(found.vectors.sum(), z, retain_graph=True)
    (plain,) = torch.autograd.grad(F.normalize(z, dim=-1).sum(), z)
    torch.testing.assert_close(through, plain)
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(5, 4))


def test_the_entropy_counts_only_while_few_codes_are_in_use():
    z = vectors(32, 4, 4, seed=5)
    plain, spread = begun(spread=0.0), begun(spread=1.0)
    used = perplexity(plain.eval()(z).indices, 8)
    plain.train()
    cosine = F.normalize(z, dim=-1) @ plain.codebook.T
    mean = (10 * cosine).softmax(-1).mean((0, 1))
    wanted = float(plain(z).loss) + float((mean * mean.log()).sum())
    assert used < 8 and float(spread(z).loss) == pytest.approx(wanted, rel=1e-4)


def test_perplexity_counts_codes():
    assert perplexity(torch.tensor([[0, 1], [2, 3]]), 9) == pytest.approx(4)
    assert perplexity(torch.zeros(7, dtype=torch.long), 9) == pytest.approx(1)
