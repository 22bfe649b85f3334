"""The network: tokens of each group, parameters at the released sizes, FLOPs, and positions that are added again."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from laconic.methods.codecs.e_mmdit.network import EMMDiTNet, Sizes

TINY = Sizes(
    side=8, channels=12, width=32, heads=2, groups=(1, 3, 1), text_width=8, text=16, slices=2, runs=(1, 2)
)  # fmt: skip


def net(seed=0, **more):
    torch.manual_seed(seed)
    return EMMDiTNet(Sizes(**{**TINY.as_dict(), **more})).eval()


def given(b=2):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(b, 12, 8, 8, generator=generator),
        torch.rand(b, generator=generator),
        torch.randn(b, 16, 8, generator=generator),
    )


def test_1_the_release_has_256_80_256_tokens_and_304_million_parameters():
    assert Sizes().image_tokens() == (256, 80, 256)
    with torch.device("meta"):
        made = EMMDiTNet(Sizes())
    count = sum(p.numel() for p in made.parameters())
    assert abs(count / 304e6 - 1) < 0.01


@torch.no_grad()
def test_1_each_group_runs_on_its_tokens():
    made, seen = net(), []
    for block in made.blocks:
        block.register_forward_pre_hook(lambda m, args: seen.append((args[0].shape[1], args[1].shape[1])))
    assert made(*given()).shape == (2, 12, 8, 8)
    assert seen == [(64, 16), (20, 16), (20, 16), (20, 16), (64, 16)]


@torch.no_grad()
@pytest.mark.parametrize("ratios", [(2, 4), (2,), ()])
@pytest.mark.parametrize("slices", [1, 2])
def test_7_flops_are_those_that_torch_counts(ratios, slices):
    made = net(ratios=ratios, slices=slices)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        made(*given(1))
    assert made.sizes.flops() == counter.get_total_flops()


def test_7_the_middle_is_what_is_saved():
    few, all_ = Sizes().flops(), Sizes(ratios=()).flops()
    assert few / all_ == pytest.approx(0.708, abs=0.001)  # the text's 128 tokens stay in every block
    assert Sizes(slices=1).flops() > Sizes().flops()


@torch.no_grad()
def test_5_positions_are_added_once_more_after_the_reconstruction():
    made, plain = net(), net(reinforce=False)
    plain.load_state_dict(made.state_dict())
    seen = {}
    for name, one in (("with", made), ("without", plain)):
        one.blocks[-1].register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
        one(*given())
    torch.testing.assert_close(seen["with"] - seen["without"], made.positions.expand(2, -1, -1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_9_every_text_token_takes_part():
    made = net()
    latent, t, text = given(1)
    found = made(latent, t, text)
    for token in (0, 7, 15):
        other = text.clone()
        other[:, token] += 1
        assert (made(latent, t, other) - found).abs().max() > 1e-6


@torch.no_grad()
def test_a_batch_is_its_rows():
    made = net()
    latent, t, text = given(3)
    found = made(latent, t, text)
    for b in range(3):
        torch.testing.assert_close(found[b], made(latent[b : b + 1], t[b : b + 1], text[b : b + 1])[0], atol=1e-5, rtol=1e-5)
