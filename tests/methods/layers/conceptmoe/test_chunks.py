"""ConceptMoE's boundaries, the loss on their share, and smoothing."""

import pytest
import torch

from laconic.methods.layers.conceptmoe.chunks import boundary_probability, certainty, ratio_loss, sharpened, smoothed


def test_1_alike_tokens_have_no_boundary_and_opposite_ones_have():
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(boundary_probability(x, 3 * x), torch.zeros(2, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(boundary_probability(x, -x), torch.ones(2, 5))


def test_drawn_boundaries_are_surer():
    found = sharpened(torch.tensor([0.0, 0.4, 0.5, 0.6, 1.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0816, 0.1091, 0.9184, 1.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("ratio", [1.5, 2.0, 4.0])
def test_2_the_ratio_is_where_the_loss_does_not_push(ratio):
    def pushed(share):
        boundary = torch.arange(1200) < round(1200 * share)
        p = torch.full((1200,), share, requires_grad=True)
        loss = ratio_loss(p, boundary, ratio)
        (gradient,) = torch.autograd.grad(loss, p)
        return float(loss.detach()), float(gradient.sum())

    loss, gradient = pushed(1 / ratio)
    assert loss == pytest.approx(1, abs=1e-5) and gradient == pytest.approx(0, abs=1e-5)
    assert pushed(0.7 / ratio)[1] < 0 < pushed(1.3 / ratio)[1]


def test_4_the_closed_form_is_the_loop():
    torch.manual_seed(0)
    concepts, p, before = torch.randn(3, 9, 5), torch.rand(3, 9), torch.randn(3, 5)
    p[0, 0] = p[1, 4] = 1.0
    p[2, 6:] = 0.0
    found, e = smoothed(concepts, p, before), before
    for i in range(9):
        e = (1 - p[:, i, None]) * e + p[:, i, None] * concepts[:, i]
        torch.testing.assert_close(found[:, i], e, atol=1e-5, rtol=1e-5)


def test_6_certainty_is_one_and_has_a_gradient_for_either_decision():
    p = torch.tensor([[0.2, 0.8]], requires_grad=True)
    factor = certainty(p, torch.tensor([[False, True]]))
    assert factor.tolist() == [[1.0, 1.0]]
    assert torch.autograd.grad(factor.sum(), p)[0].tolist() == [[-1.0, 1.0]]
