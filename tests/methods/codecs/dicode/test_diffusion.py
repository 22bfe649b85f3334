"""The schedule, DDIM with the oracle's velocity, and guidance."""

import pytest
import torch

from laconic.methods.codecs.dicode.diffusion import ddim, guided, levels, noised


def test_levels_fall_to_exactly_zero_and_begin_where_they_did():
    a, betas = levels(), [(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / 999) ** 2 for i in range(1000)]
    assert len(a) == 1000 and float(a[-1]) == 0 and bool((a.diff() < 0).all())
    plain, left = [], 1.0
    for beta in betas:
        left *= 1 - beta
        plain.append(left**0.5)
    for i in (0, 300, 998):
        root = (plain[i] - plain[-1]) * plain[0] / (plain[0] - plain[-1])
        assert float(a[i]) == pytest.approx(root**2, rel=1e-4)


def test_velocity_and_signal_turn_into_each_other():
    x, noise, a = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([1.0, 0.36, 0.0])
    found, v = noised(x, noise, a)
    torch.testing.assert_close(found[0], x[0])
    torch.testing.assert_close(found[1], 0.6 * x[1] + 0.8 * noise[1])
    torch.testing.assert_close(found[2], noise[2])
    torch.testing.assert_close(v[2], -x[2])
    torch.testing.assert_close(0.6 * found[1] - 0.8 * v[1], x[1])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_oracles_velocity_returns_x(eta, steps):
    x, known = torch.randn(2, 5), levels()

    def oracle(x_t, t):
        a = known[(t * 1000).round().long() - 1][:, None]
        eps = (x_t - a.sqrt() * x) / (1 - a).sqrt()
        return a.sqrt() * eps - (1 - a).sqrt() * x

    torch.testing.assert_close(ddim(oracle, torch.randn(2, 5), steps, eta), x, atol=1e-4, rtol=0)


def test_steps_begin_in_pure_noise_and_noise_follows_the_generator():
    times = []
    ddim(lambda x, t: times.append(float(t[0])) or x, torch.zeros(1, 1), 4)
    assert times == pytest.approx([1.0, 0.75, 0.5, 0.25])
    made = [ddim(lambda x, t: 0 * x, torch.ones(1, 9), 5, 1.0, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    still = [ddim(lambda x, t: 0 * x, torch.ones(1, 9), 5, 0.0, torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert torch.equal(*still)


def test_one_eta_is_ancestral_sampling():
    """Mean and variance of a step are those of the posterior q(x_b | x_a, x)."""
    known = levels()
    a, b = known[999], known[499]
    x = torch.full((20_000, 1), 0.7)

    def velocity(x_t, t):
        at = known[(t * 1000).round().long() - 1][:, None]
        return at.sqrt() * (x_t - at.sqrt() * x) / (1 - at).sqrt() - (1 - at).sqrt() * x

    seen = []
    ddim(lambda x_t, t: seen.append(x_t.clone()) or velocity(x_t, t), torch.randn(20_000, 1), 2)
    assert float(a) == 0
    assert float(seen[1].mean()) == pytest.approx(0.7 * float(b) ** 0.5, abs=0.03)
    assert float(seen[1].var()) == pytest.approx(1 - float(b), abs=0.03)


def test_guidance_goes_away_from_no_tokens_and_keeps_the_spread():
    told, nothing = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.testing.assert_close(guided(told, nothing, 1.0, 0.7), told)
    torch.testing.assert_close(guided(told, nothing, 3.0, 0.0), nothing + 3 * (told - nothing))
    rescaled = guided(told, nothing, 7.5, 1.0)
    torch.testing.assert_close(rescaled.std((1, 2)), told.std((1, 2)))
    half = 0.5 * rescaled + 0.5 * guided(told, nothing, 7.5, 0.0)
    torch.testing.assert_close(guided(told, nothing, 7.5, 0.5), half)
