"""Quantisers against loops over all codes, and the gradients that go through them."""

import itertools

import pytest
import torch

from laconic.codec.quantisers import FSQ, VQ


def slow_nearest(z, codebook):
    """The nearest code of each vector by the squared distance of unit vectors, one by one."""
    unit = [c / c.norm() for c in codebook]
    return [min(range(len(unit)), key=lambda i: float(((v / v.norm() - unit[i]) ** 2).sum())) for v in z]


@pytest.fixture
def vq():
    torch.manual_seed(0)
    made = VQ(17, 5)
    with torch.no_grad():
        made.codebook.normal_()
    return made


def test_4_vq_is_the_nearest_code(vq):
    z = torch.randn(3, 11, 5)
    found = vq(z)
    assert found.indices.flatten().tolist() == slow_nearest(z.flatten(0, 1), vq.codebook.detach())
    torch.testing.assert_close(found.vectors, vq.vectors(found.indices))
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(3, 11))


def test_4_vq_loss_and_gradients(vq):
    z = torch.randn(6, 5, requires_grad=True)
    found = vq(z)
    unit = z / z.norm(dim=-1, keepdim=True)
    assert float(found.loss.detach()) == pytest.approx(
        1.25 * float((found.vectors.detach() - unit.detach()).square().mean()), rel=1e-4
    )
    (through,) = torch.autograd.grad(found.vectors.sum(), z, retain_graph=True)
    (as_if_identity,) = torch.autograd.grad((z / z.norm(dim=-1, keepdim=True)).sum(), z)
    torch.testing.assert_close(through, as_if_identity)
    commitment, codebook = torch.autograd.grad(found.loss, [z, vq.codebook])
    assert commitment.abs().sum() > 0
    moved = codebook.abs().sum(-1).nonzero()[:, 0].tolist()
    assert moved == sorted(set(found.indices.tolist()))  # the codes in use, and no others


@pytest.mark.parametrize("levels", [(2,), (3, 4), (8, 5, 2)])
def test_every_combination_is_a_code_of_fsq(levels):
    fsq = FSQ(levels)
    everything = torch.arange(fsq.codes)
    vectors = fsq.vectors(everything)
    assert vectors.shape == (fsq.codes, len(levels)) and len(vectors.unique(dim=0)) == fsq.codes
    slow = [[d - n // 2 for d, n in zip(digits, levels, strict=True)] for digits in itertools.product(*map(range, levels))]
    scaled = {tuple(x / (n // 2) for x, n in zip(row, levels, strict=True)) for row in slow}
    assert {tuple(row) for row in vectors.tolist()} == {tuple(torch.tensor(row).tolist()) for row in scaled}


@pytest.mark.parametrize("levels", [(3, 4), (8, 5, 2), (8, 8)])
def test_fsq_rounds_what_it_is_given_and_reaches_all_levels(levels):
    fsq = FSQ(levels)
    z = torch.randn(5000, len(levels), generator=torch.Generator().manual_seed(0)) * 4
    z.requires_grad_(True)
    found = fsq(z)
    torch.testing.assert_close(found.vectors, fsq.vectors(found.indices))
    for i, n in enumerate(levels):
        assert len(found.vectors[:, i].unique()) == n
    order = z[:, 0].argsort()
    assert bool((found.vectors[order, 0].diff() >= 0).all())  # more never becomes less
    (grad,) = torch.autograd.grad(found.vectors.sum(), z)
    assert grad.abs().sum() > 0 and float(found.loss) == 0
