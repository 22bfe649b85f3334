"""Mixtures of Gaussians against brute force, and what is drawn from them."""

import math

import pytest
import torch

from laconic.methods.codecs.dicode.mixture import LEAST, Mixture


def mixture(m=3, d=4, rows=5):
    numbers = torch.randn(rows, 2 * m * d + m, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return numbers, Mixture.of(numbers, m)


def test_1_the_likelihood_is_the_brute_force_one():
    numbers, made = mixture()
    x = torch.randn(5, 4, dtype=torch.float64)
    for row in range(5):
        given = numbers[row].tolist()
        means, spread, logits = given[:12], given[12:24], given[24:]
        shares = [math.exp(a) / sum(math.exp(b) for b in logits) for a in logits]
        total = 0.0
        for c in range(3):
            density = shares[c]
            for i in range(4):
                variance = max(math.log1p(math.exp(spread[4 * c + i])), LEAST)
                apart = float(x[row, i]) - means[4 * c + i]
                density *= math.exp(-(apart**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
            total += density
        assert float(made.nll(x)[row]) == pytest.approx(-math.log(total) / 4, rel=1e-5)


def test_1_one_component_of_fixed_variance_is_the_squared_error():
    means, x = torch.randn(7, 1, 4), torch.randn(7, 4)
    made = Mixture(means, torch.full((7, 1, 4), 0.3), torch.randn(7, 1))
    squared = (x - means[:, 0]).square().mean(1)
    torch.testing.assert_close(made.nll(x), squared / 0.6 + 0.5 * math.log(2 * math.pi * 0.3))


def test_2_without_variance_a_dominant_component_returns_its_mean():
    _, made = mixture()
    sure = made._replace(logits=torch.tensor([0.0, 50.0, 0.0], dtype=torch.float64).expand(5, 3))
    torch.testing.assert_close(sure.sample(0.0), made.means[:, 1])
    assert float(sure.entropy().max()) < 1e-9
    even = made._replace(logits=torch.zeros(5, 3, dtype=torch.float64))
    torch.testing.assert_close(even.entropy(), torch.full((5,), math.log(3), dtype=torch.float64))


def test_2_samples_have_the_mean_and_the_covariance():
    mean, variance = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.2, 1.5, 0.7])
    made = Mixture(mean.expand(20_000, 1, 3), variance.expand(20_000, 1, 3), torch.zeros(20_000, 1))
    drawn = made.sample(0.5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), torch.diag(0.5 * variance), atol=0.03, rtol=0)


def test_components_are_drawn_by_their_shares():
    means = torch.tensor([[0.0], [1.0], [2.0]]).expand(9000, 3, 1)
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(9000, 3)
    drawn = Mixture(means, torch.ones(9000, 3, 1), logits).sample(0.0, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn[:, 0].long(), minlength=3) / 9000
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.02, rtol=0)
