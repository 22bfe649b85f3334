"""The parts of a diffusion transformer's block, put together token by token."""

import torch
import torch.nn.functional as F

from laconic.codec.modulated import Modulated


def made(**kinds):
    torch.manual_seed(0)
    return Modulated(8, 2, **kinds)


@torch.no_grad()
def test_a_block_is_the_slow_one():
    block = made()
    x, condition = torch.randn(2, 5, 8), torch.randn(2, 1, 8)
    m = block.modulation(condition)
    q, k, v = block.project(x, m)
    found = block.write(x, F.scaled_dot_product_attention(q, k, v), m)
    for b in range(2):
        shift, scale, gate, shift2, scale2, gate2 = block.modulate(condition[b, 0]).split(8)
        rows = [block.qkv(F.layer_norm(row, (8,)) * (1 + scale) + shift).split(8) for row in x[b]]
        for n in range(5):
            heads = []
            for h in (slice(0, 4), slice(4, 8)):
                weights = torch.stack([rows[n][0][h] @ row[1][h] for row in rows]).div(2).softmax(0)
                heads.append(sum(w * row[2][h] for w, row in zip(weights, rows, strict=True)))
            y = x[b, n] + gate * block.out(torch.cat(heads))
            y = y + gate2 * block.mlp(F.layer_norm(y, (8,)) * (1 + scale2) + shift2)
            torch.testing.assert_close(found[b, n], y, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_zero_modulations_add_nothing_and_each_token_may_have_its_own():
    block, x = made(zero=True), torch.randn(2, 5, 8)
    each = torch.randn(5, 8)
    assert torch.equal(block.write(x, torch.randn(2, 2, 5, 4), block.modulation(each)), x)
    own = made()
    m = own.modulation(each)
    found = own.project(x, m)[0]
    alone = own.project(x[:, 3:4], own.modulation(each[3:4]))[0]
    torch.testing.assert_close(found[:, :, 3:4], alone)


def test_what_is_only_read_has_nothing_to_write_with():
    last = made(last=True)
    assert not hasattr(last, "out") and len(last.modulation(torch.randn(1, 8))) == 2
    assert last.project(torch.randn(1, 3, 8), last.modulation(torch.randn(1, 8)))[0].shape == (1, 2, 3, 4)
