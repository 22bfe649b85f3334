"""The joint block against a slow one, its regions, and its modulation."""

import pytest
import torch

from laconic.methods.codecs.e_mmdit.blocks import JointBlock, Region, Stream, pattern

FULL = Region()


def block(region=FULL, last=False, seed=0):
    torch.manual_seed(seed)
    return JointBlock(16, 2, 3, region, last)


def given(b=2, n=16, m=8):
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(*shape, generator=generator) for shape in ((b, n, 16), (b, m, 16), (b, 6, 16)))


def slow(made, image, text, t6, region):
    """One block, token by token and head by head, straight from the equations."""
    out = []
    parts = ((made.image, image), (made.text, text))
    normed, mods = [], []
    for stream, x in parts:
        m = [stream.bias[i] + t6[:, i] * (1 + stream.scale[i]) for i in range(6)]
        mods.append(m)
        normed.append(
            torch.nn.functional.layer_norm(x, (16,), stream.norm.weight, stream.norm.bias) * (1 + m[1][:, None])
            + m[0][:, None]
        )
    heads = []
    for (stream, _), x in zip(parts, normed, strict=True):
        q, k, v = stream.qkv(x).split(16, -1)
        heads.append(
            [(stream.q_norm(q[..., h : h + 8]), stream.k_norm(k[..., h : h + 8]), v[..., h : h + 8]) for h in (0, 8)]
        )
    for s, (stream, x) in enumerate(parts):
        attended = torch.zeros_like(x)
        for b in range(x.shape[0]):
            for p in range(x.shape[1]):
                mine = p // region.run % region.slices
                for h in range(2):
                    keys, values = [], []
                    for other in (0, 1):
                        for j in range(parts[other][1].shape[1]):
                            if j // region.run % region.slices == mine:
                                keys.append(heads[other][h][1][b, j])
                                values.append(heads[other][h][2][b, j])
                    weights = (torch.stack(keys) @ heads[s][h][0][b, p] / 8**0.5).softmax(0)
                    attended[b, p, 8 * h : 8 * h + 8] = weights @ torch.stack(values)
        m = mods[s]
        x = x + m[2][:, None] * stream.out(attended)
        inner = torch.nn.functional.layer_norm(x, (16,), eps=1e-6) * (1 + m[4][:, None]) + m[3][:, None]
        out.append(x + m[5][:, None] * stream.ffn(inner))
    return out


@torch.no_grad()
@pytest.mark.parametrize("region", [Region(), Region(2, 1), Region(4, 2)])
def test_3_a_block_is_the_slow_one(region):
    made = block(region)
    for found, wanted in zip(made(*given()), slow(made, *given(), region), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_3_nothing_crosses_subregions_within_a_block_and_all_does_after_a_full_one():
    image, text, t6 = given(1)
    region = block(Region(4, 1))

    def depends(run, x):
        jacobian = torch.autograd.functional.jacobian(lambda i: run(i)[0][0].sum(-1), x)[:, 0].abs().sum(-1)
        return jacobian > 1e-9  # [16 outputs, 16 inputs]

    same = torch.arange(16)[:, None] % 4 == torch.arange(16) % 4
    assert torch.equal(depends(lambda i: region(i, text, t6), image), same)
    assert depends(lambda i: block()(*region(i, text, t6), t6), image).all()


def test_blocks_alternate():
    assert [pattern(i, 4, (1, 4)) for i in range(4)] == [Region(), Region(4, 1), Region(4, 4), Region()]
    assert {pattern(i, 1, (1, 1)) for i in range(6)} == {Region()}


@torch.no_grad()
def test_4_without_its_own_numbers_a_block_has_the_modulation_of_the_time():
    made = Stream(16, 2, 3)
    assert made.bias.numel() + made.scale.numel() == 12 * 16
    made.bias.zero_()
    made.scale.zero_()
    t6 = torch.randn(2, 6, 16)
    assert torch.equal(torch.cat(made.modulation(t6), 1), t6)


@torch.no_grad()
def test_the_last_block_reads_the_text_and_leaves_it():
    image, text, t6 = given()
    made = block(last=True)
    found = made(image, text, t6)
    assert torch.equal(found[1], text) and not torch.equal(found[0], image)
    assert not torch.equal(made(image, text + 1, t6)[0], made(image, text * torch.linspace(0, 2, 8)[:, None], t6)[0])
