"""DiCoDe's tokenizer: who sees which tokens, the two branches, and borders that clips share."""

import pytest
import torch
from helpers.dicode_tools import tiny_dicode

from laconic.codec.patches import unpatched
from laconic.methods.codecs.dicode.decoder import Told, routed
from laconic.methods.codecs.dicode.diffusion import ddim, guided
from laconic.methods.codecs.dicode.network import Sizes, joined
from laconic.methods.codecs.dicode.resampler import Layer


def clips(n=2, frames=4):
    return torch.rand(n, frames, 3, 8, 8, generator=torch.Generator().manual_seed(n)) * 2 - 1


@torch.no_grad()
def test_4_each_half_of_a_clip_is_told_of_its_own_end():
    net, seen = tiny_dicode(), []
    net.decoder.blocks[0].told.register_forward_hook(lambda module, given, out: seen.append((given[1], out)))
    x, t, tokens = torch.randn(1, 4, 4, 48), torch.tensor([0.5]), torch.randn(1, 2, 3, 4)
    plain = net.decoder(x, t, tokens)
    other = tokens.clone()
    other[:, 1] += 1
    changed = net.decoder(x, t, other)
    for before, after in zip(*seen, strict=True):
        assert torch.equal(before[:2], after[:2]) and not torch.isclose(before[2:], after[2:]).all()
        assert all(not torch.equal(before[i], after[i]) for i in (2, 3))
    assert not torch.equal(plain[:, 0], changed[:, 0])  # later layers mix frames
    assert torch.equal(routed(tokens, 4)[0], tokens[0, [0, 0, 1, 1]])


@torch.no_grad()
def test_5_alpha_of_zero_weighs_the_tokens_by_exactly_one():
    torch.manual_seed(0)
    told = Told(8, 4, 2)
    x, tokens = torch.randn(3, 5, 8), torch.randn(3, 6, 4)

    def slow(weight):
        q = told.query(told.norm(x)).unflatten(-1, (2, 4)).transpose(1, 2)
        out = 0
        for share, seen, project in ((1, told.empty.expand(3, -1, -1), told.text), (weight, tokens, told.tokens)):
            k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in project(seen).chunk(2, -1))
            out = out + share * ((q @ k.mT / 2).softmax(-1) @ v)
        return x + told.out(out.transpose(1, 2).flatten(2))

    torch.testing.assert_close(told(x, tokens), slow(1.0))
    told.alpha.fill_(0.4)
    torch.testing.assert_close(told(x, tokens), slow(1 + torch.tensor(0.4).tanh()))


@torch.no_grad()
def test_6_a_border_is_decoded_from_the_same_tokens_for_both_its_clips():
    net, films = tiny_dicode(), clips(1, 7)[0]
    borders = net.tokens(films[::3])
    assert borders.shape == (3, 3, 4)
    torch.testing.assert_close(borders[1], net.tokens(films[3:4])[0])
    made = torch.arange(2 * 4).view(2, 4, 1)
    assert joined(made).flatten().tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert joined(made, borders=2).flatten().tolist() == list(range(8))


@torch.no_grad()
def test_latents_read_features_and_themselves():
    torch.manual_seed(0)
    layer = Layer(8, 2)
    features, latents = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    normed = layer.of_latents(latents)
    both = torch.cat([layer.of_features(features), normed], 1)
    q = layer.query(normed).unflatten(-1, (2, 4)).transpose(1, 2)
    k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in layer.seen(both).chunk(2, -1))
    mixed = latents + layer.out(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(features, latents), mixed + layer.mlp(mixed))


@torch.no_grad()
def test_attention_goes_along_space_and_time_in_turn():
    net = tiny_dicode()
    x, time, tokens = torch.randn(1, 4, 4, 16), torch.randn(1, 1, 1, 16), torch.randn(1, 4, 3, 4)
    for block, along_time in zip(net.decoder.blocks, (False, True), strict=True):
        plain = block(x, time, tokens)
        other = x.clone()
        other[0, 1, 2] += torch.randn(16)
        changed = (block(other, time, tokens) != plain).any(-1)[0]
        wanted = torch.zeros(4, 4, dtype=torch.bool)
        if along_time:
            wanted[:, 2] = True
        else:
            wanted[1] = True
        assert torch.equal(changed, wanted)


def test_the_loss_is_of_the_velocity_and_dropped_clips_have_empty_ends(monkeypatch):
    net, given = tiny_dicode(), {}

    def noted(x, t, tokens):
        given.update(x=x, t=t, tokens=tokens)
        return torch.zeros_like(x) + 0 * tokens.sum()

    monkeypatch.setattr(net.decoder, "forward", noted)
    net.loss(clips(16))
    assert len(given["t"].unique()) > 8 and float(given["t"].min()) > 0 and float(given["t"].max()) <= 1
    torch.testing.assert_close(given["tokens"], net.tokens(clips(16)[:, [0, -1]]))
    net.loss(clips(16), dropped=1.0)
    empty = net.tokens(torch.zeros(16, 2, 3, 8, 8))
    torch.testing.assert_close(given["tokens"], empty)
    monkeypatch.setattr(net, "levels", torch.zeros(1000))  # noise alone, whose velocity is minus the clip
    assert float(net.loss(clips(16)).detach()) == pytest.approx(float(clips(16).square().mean()), rel=1e-5)


@torch.no_grad()
def test_guidance_of_one_is_none_and_more_turns_away_from_empty_frames():
    net, tokens = tiny_dicode(), torch.randn(2, 2, 3, 4)
    noise = net.noise(2, torch.Generator().manual_seed(0))
    plain, near, far = (net.decode(tokens, noise, 2, 0.0, guidance) for guidance in (1.0, 1.00001, 3.0))
    torch.testing.assert_close(plain, near, atol=1e-3, rtol=0)
    assert plain.shape == (2, 4, 3, 8, 8) and not torch.allclose(plain, far)


@torch.no_grad()
def test_what_is_guided_away_from_is_told_of_all_zero_images():
    net, tokens = tiny_dicode(), torch.randn(2, 2, 3, 4)
    noise, nothing = net.noise(2, torch.Generator().manual_seed(0)), net.tokens(torch.zeros(2, 2, 3, 8, 8))

    def velocity(x, t):
        return guided(net.decoder(x, t, tokens), net.decoder(x, t, nothing), 3.0, 0.7)

    want = unpatched(ddim(velocity, noise, 2, 0.0), 4, 2)
    torch.testing.assert_close(net.decode(tokens, noise, 2, 0.0, 3.0, 0.7), want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("step", [0, 999])
def test_the_time_of_a_step_is_the_one_that_it_has_in_sampling(monkeypatch, step):
    """The last of a thousand is 1, where there is noise alone; the first is no longer 0."""
    net, seen = tiny_dicode(), {}
    monkeypatch.setattr(torch, "randint", lambda high, size, **more: torch.full(size, step))
    monkeypatch.setattr(net.decoder, "forward", lambda x, t, tokens: seen.update(x=x, t=t) or torch.zeros_like(x))
    net.loss(clips(2))
    torch.testing.assert_close(seen["t"], torch.full((2,), (step + 1) / 1000))


@pytest.mark.parametrize("wrong", [{"frames": 5}, {"size": 10}, {"patch": 3}])
def test_sizes_that_do_not_divide_are_refused(wrong):
    with pytest.raises(ValueError, match="frames must be even, and size a multiple of 4"):
        Sizes(**wrong)


@torch.no_grad()
def test_language_loss_is_of_frozen_tokens():
    net = tiny_dicode(words=16)
    ids, frames = torch.tensor([[1, 7, 0, 0], [2, 8, 13, 0]]), clips(2, 3)
    tokens = net.tokens(frames)
    assert tokens.shape == (2, 3, 3, 4)
    wanted = net.language(ids, tokens).nll(tokens).mean()
    torch.testing.assert_close(net.language_loss(ids, frames), wanted)
    with torch.enable_grad():
        net.requires_grad_(True)
        net.language_loss(ids, frames).backward()
    assert all(p.grad is None for name, p in net.named_parameters() if not name.startswith("language"))
