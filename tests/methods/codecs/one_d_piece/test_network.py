"""One-D-Piece's network: prefixes, tokens that are never seen, and how many are drawn in training."""

import pytest
import torch
from helpers.codec_tools import SIZES, tiny_net
from scipy.stats import chisquare

from laconic.methods.codecs.one_d_piece.network import OneDPieceNet, Sizes


def images(n: int = 2, size: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1


@torch.no_grad()
def test_1_the_whole_length_is_no_length_and_a_prefix_is_its_tokens():
    net = tiny_net().eval()
    x = images()
    vectors = net.quantise(x).vectors
    assert torch.equal(net(x, 4)[0], net(x)[0])
    for k in range(1, 5):
        assert torch.equal(net(x, k)[0], net.draw(vectors[:, :k]))
        changed = vectors.clone()
        changed[:, k:] = 7
        assert torch.equal(net.draw(changed[:, :k]), net.draw(vectors[:, :k]))


@torch.no_grad()
@pytest.mark.parametrize("levels", [(4, 4, 4), ()])
def test_2_numbers_vectors_and_images_agree_with_the_forward_pass(levels):
    net = tiny_net(sizes=Sizes(**{**SIZES.as_dict(), "levels": levels, "codes": 32, "code_width": 4})).eval()
    x = images()
    found = net.quantise(x)
    torch.testing.assert_close(net.draw(net.quantiser.vectors(found.indices)), net(x)[0], atol=1e-5, rtol=0)
    assert torch.equal(net.quantise(x).indices, found.indices)
    assert found.indices.shape == (2, 4) and int(found.indices.max()) < net.quantiser.codes


def test_3_lengths_are_drawn_evenly_and_never_zero():
    net = tiny_net()
    torch.manual_seed(0)
    drawn = torch.tensor([net.kept() for _ in range(4000)])
    counts = torch.bincount(drawn, minlength=5)
    assert counts[0] == 0 and len(counts) == 5
    assert chisquare(counts[1:].numpy()).pvalue > 0.001
    assert {net.eval().kept() for _ in range(20)} == {4}
    assert {tiny_net(drop=False).train().kept() for _ in range(20)} == {4}


def test_one_draw_serves_the_whole_batch_and_gradients_reach_both_ends(monkeypatch):
    net = tiny_net().train()
    seen = []
    monkeypatch.setattr(net, "draw", lambda v: seen.append(v.shape) or OneDPieceNet.draw(net, v))
    monkeypatch.setattr(net, "kept", lambda: 2)
    drawn, loss = net(images(3))
    assert seen == [(3, 2, 3)] and float(loss) == 0
    drawn.square().mean().backward()
    assert net.patchify.weight.grad.abs().sum() > 0 and net.read.weight.grad.abs().sum() > 0
    assert net.code_place.grad[2:].abs().sum() == 0 and net.code_place.grad[:2].abs().sum() > 0


@torch.no_grad()
def test_each_token_is_its_own_latents_output():
    """A projection that mixed the channels of all latents (a reshape without a transpose) would change every code."""
    net = tiny_net().eval()
    hidden = torch.randn(1, SIZES.patches + 1 + SIZES.tokens, SIZES.width)
    net.encoder = torch.nn.Identity()
    codes = net.read(hidden[:, -SIZES.tokens :])
    other = hidden.clone()
    other[:, -1] += 1
    changed = (net.read(other[:, -SIZES.tokens :]) != codes).any(-1)[0]
    assert changed.tolist() == [False, False, False, True]


@torch.no_grad()
def test_cells_become_the_pixels_at_their_place(monkeypatch):
    net = tiny_net().eval()
    net.head = torch.nn.Identity()  # pixels are the first numbers of a mask token's output
    place = torch.arange(5 * 48, dtype=torch.float32).view(1, 5, 48)
    monkeypatch.setattr(net.decoder, "forward", lambda x: place)
    drawn = net.draw(torch.zeros(1, 1, 3))[0]
    for cell in range(4):
        row, column = divmod(cell, 2)
        block = drawn[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(block.flatten(), place[0, 1 + cell])
