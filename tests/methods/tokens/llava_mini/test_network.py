"""The networks of LLaVA-Mini against loops over their equations. "line n" is what the card must show."""

import math

import pytest
import torch

from laconic.methods.tokens.llava_mini import network
from laconic.methods.tokens.llava_mini.network import Compressor, Mini, places


def code(at, width):
    """Sines of all rates, then cosines."""
    rates = [10000 ** (-i / (width // 2)) for i in range(width // 2)]
    return [math.sin(at * r) for r in rates] + [math.cos(at * r) for r in rates]


def test_places_are_middles_of_cells():
    width, side, grid = 8, 2, 6
    found = places(side, grid, width)
    for row in range(side):
        for column in range(side):
            want = code(3 * row + 1, width // 2) + code(3 * column + 1, width // 2)  # of cells 0..2, or 3..5
            torch.testing.assert_close(found[row * side + column], torch.tensor(want))
    torch.testing.assert_close(places(5, 5, width)[7, : width // 2], torch.tensor(code(1, width // 2)))
    with pytest.raises(ValueError, match="must divide by 4"):
        places(2, 6, 10)


def test_compression_equals_a_loop():
    """line 2"""
    torch.manual_seed(0)
    net, visual = Compressor(16, 2), torch.randn(3, 36, 16)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn_like(weight))
    at, keys_at, out = places(2, 6, 16), places(6, 6, 16), net(visual)
    for b in range(3):
        for i in range(4):
            query = net.query_norm(net.queries[i]) + at[i]
            weights = [float(query @ (net.key_norm(visual[b, n]) + keys_at[n])) / 4 for n in range(36)]
            top = max(weights)
            shares = [math.exp(w - top) for w in weights]
            want = sum(s / sum(shares) * visual[b, n] for n, s in enumerate(shares))
            torch.testing.assert_close(out[b, i], want, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net.attention(visual).sum(-1), torch.ones(3, 4))


def test_a_query_and_places_of_zero_give_the_mean(monkeypatch):
    """line 2"""
    monkeypatch.setattr(network, "places", lambda side, grid, width: torch.zeros(side**2, width))
    net, visual = Compressor(16, 1), torch.randn(2, 36, 16)
    torch.nn.init.zeros_(net.queries)
    torch.testing.assert_close(net(visual)[:, 0], visual.mean(1))


def test_questions_about_one_image_do_not_see_each_other(vlm):
    """The visual rows run once for all of them, which changes nothing; nor does padding on the right."""
    torch.manual_seed(0)
    net = Mini(vlm, (1,), 2).eval().requires_grad_(False)
    visual, text = torch.randn(2, 16, 128), torch.randn(6, 5, 128)
    found = net.fused(visual, text)
    for q in range(6):
        alone = net.fusion(torch.cat([visual[q // 3], text[q]])[None])[:, -5:]
        torch.testing.assert_close(found[q], alone[0], rtol=1e-4, atol=1e-4)
        short = net.fused(visual[q // 3][None], text[q, :3][None])
        torch.testing.assert_close(found[q, :3], short[0], rtol=1e-4, atol=1e-4)
