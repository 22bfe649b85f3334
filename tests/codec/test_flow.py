"""Rectified flow: the oracle's path, the loss, and guidance."""

import torch

from laconic.codec.flow import flow_loss, guided, noised, sampled


def test_6_the_oracles_velocity_returns_the_image_in_any_number_of_steps():
    x, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for steps in (1, 3, 20):
        torch.testing.assert_close(sampled(lambda _, t: noise - x, noise, steps), x, atol=1e-5, rtol=0)


def test_times_go_from_one_to_zero():
    seen = []
    sampled(lambda x, t: seen.append(t.tolist()) or x * 0, torch.zeros(2, 1), 4)
    assert seen == [[1, 1], [0.75, 0.75], [0.5, 0.5], [0.25, 0.25]]


def test_the_path_is_straight_and_the_oracle_has_no_loss():
    x = torch.randn(5, 2)
    noise = torch.randn(5, 2)
    t = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    made = noised(x, noise, t)
    assert torch.equal(made[0], x[0]) and torch.equal(made[4], noise[4])
    torch.testing.assert_close(made[1], 0.75 * x[1] + 0.25 * noise[1])
    x = torch.zeros(64, 3)  # then x_t = t eps, and the velocity is x_t / t
    assert float(flow_loss(lambda x_t, at: x_t / at[:, None], x)) < 1e-8
    assert float(flow_loss(lambda x_t, at: -x_t / at[:, None], x)) > 1


def test_guidance_goes_from_no_text_towards_the_text_and_beyond():
    def velocity(x, t, text):
        return x + text

    text, nothing, x, t = torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([[10.0]]), torch.ones(1)
    for scale, wanted in ((1, 13), (0, 11), (2, 15)):
        assert float(guided(velocity, text, nothing, scale)(x, t)) == wanted
