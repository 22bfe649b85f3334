"""Selftok's network: who sees whom, hidden codes, the oracle's path, and gradients."""

import pytest
import torch
from helpers.selftok_tools import tiny_selftok

from laconic.codec.embeddings import frequencies
from laconic.codec.patches import patched
from laconic.codec.quantisers import Quantised
from laconic.methods.codecs.selftok.network import scaled_gradient


def images(n=2, size=8):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(n)) * 2 - 1


@torch.no_grad()
def test_2_a_hidden_code_does_not_matter_and_a_visible_one_does():
    net = tiny_selftok()
    x, t = torch.randn(2, 4, 48), torch.tensor([0.3, 0.8])
    vectors, visible = torch.randn(2, 4, 3), net.schedule.visible(t)
    assert visible.tolist() == [[True, True, False, False], [True, True, True, True]]
    plain = net.decoder(x, t, vectors, visible)
    for code in range(4):
        other = vectors.clone()
        other[:, code] += 1
        apart = (net.decoder(x, t, other, visible) - plain).abs().amax((1, 2))
        for row in range(2):
            assert (apart[row] > 1e-4) if visible[row, code] else (apart[row] <= 1e-6)


@torch.no_grad()
def test_2_where_all_codes_are_hidden_none_is_a_key():
    net = tiny_selftok()
    x, t, nothing = torch.randn(2, 4, 48), torch.tensor([0.5, 0.5]), torch.zeros(2, 4, dtype=torch.bool)
    plain = net.decoder(x, t, torch.randn(2, 4, 3), nothing)
    net.decoder.code_place += 1
    assert torch.equal(net.decoder(x, t, torch.randn(2, 4, 3), nothing), plain)


@torch.no_grad()
def test_3_the_oracles_velocity_returns_the_image_and_visible_codes_follow_the_time(monkeypatch):
    net = tiny_selftok()
    x, noise, seen = images(), net.noise(2, 0), []
    wanted = noise - patched(x, 4)
    monkeypatch.setattr(net.decoder, "forward", lambda _, t, v, visible: seen.append(visible[0].tolist()) or wanted)
    for steps in (1, 3, 20):
        torch.testing.assert_close(net.sample(torch.zeros(2, 4, 3), noise, steps), x, atol=1e-5, rtol=0)
    times = torch.linspace(1, 0, 4)[:3]
    assert seen[1:4] == net.schedule.visible(times).tolist()
    seen.clear()
    net.sample(torch.zeros(2, 4, 3), noise, 1, torch.tensor([True, False, True, True]))
    assert seen == [[True, False, True, True]]


@torch.no_grad()
def test_4_the_image_stream_does_not_see_the_queries():
    net = tiny_selftok(encoder=2)
    image, queries = net.encoder.streams(images())
    net.encoder.queries += torch.randn_like(net.encoder.queries)
    other = net.encoder.streams(images())
    assert torch.equal(other[0], image) and not torch.equal(other[1], queries)


def test_5_an_untrained_encoder_gives_its_queries_for_every_image_and_training_breaks_that():
    net = tiny_selftok(opened=False).train()
    _, queries = net.encoder.streams(images(3))
    assert torch.equal(queries, net.encoder.queries.expand(3, -1, -1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(20):
        torch.manual_seed(step)
        optimizer.zero_grad()
        net.loss(images(16)).backward()
        optimizer.step()
    _, queries = net.encoder.streams(images(3))
    assert float((queries[0] - queries[1]).detach().abs().max()) > 1e-3


@torch.no_grad()
def test_queries_see_the_image_and_each_other():
    net = tiny_selftok()
    x, other = images(), images().flip(-1)
    assert not torch.allclose(net.encoder(x), net.encoder(other))
    queries = net.encoder.streams(x)[1]
    net.encoder.queries[3] += torch.randn(16)
    assert not torch.allclose(net.encoder.streams(x)[1][:, 0], queries[:, 0])


@torch.no_grad()
def test_queries_know_their_numbers():
    net = tiny_selftok()
    net.encoder.queries.copy_(net.encoder.queries[:1].expand(4, -1))
    queries = net.encoder.streams(images())[1]
    assert not torch.allclose(queries[:, 0], queries[:, 1])
    torch.testing.assert_close(net.encoder.numbers, frequencies(torch.tensor([1.0, 1.008, 1.016, 1.024]), 64))


@torch.no_grad()
def test_the_decoder_is_told_the_time():
    net, x, vectors, seen = tiny_selftok(), torch.randn(1, 4, 48), torch.randn(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    early, late = (net.decoder(x, torch.tensor([t]), vectors, seen) for t in (0.9, 0.2))
    assert not torch.allclose(early, late, atol=1e-3)


def test_the_quantisers_loss_is_added(monkeypatch):
    net = tiny_selftok()
    monkeypatch.setattr(net, "quantise", lambda x: Quantised(torch.zeros(len(x), 4, 3), None, torch.tensor(1000.0)))
    assert 1000 < float(net.loss(images()).detach()) < 1100


def test_gradients_of_codes_are_weighted_and_values_are_not():
    x, factor = torch.randn(2, 4, 3, requires_grad=True), torch.tensor([0.5, 1.0, 2.0, 3.0])[:, None]
    scaled = scaled_gradient(x, factor)
    torch.testing.assert_close(scaled, x)
    (grad,) = torch.autograd.grad(scaled.sum(), x)
    assert torch.equal(grad, factor.expand(2, 4, 3))


def test_the_loss_is_that_of_the_visible_codes_with_weighted_gradients(monkeypatch):
    net, seen = tiny_selftok(), {}

    def noted(x, t, vectors, visible):
        seen.update(t=t, vectors=vectors, visible=visible)
        return vectors.sum() * torch.ones_like(x)

    monkeypatch.setattr(net.decoder, "forward", noted)
    monkeypatch.setattr("laconic.methods.codecs.selftok.network.scaled_gradient", lambda x, f: seen.update(f=f) or x)
    net.loss(images(64))
    assert torch.equal(seen["visible"], net.schedule.visible(seen["t"])) and len(seen["t"].unique()) == 64
    assert torch.equal(seen["f"][:, 0], net.schedule.weights())
    net.loss(images(64), dropped=1.0)
    assert not seen["visible"].any()
    torch.manual_seed(0)
    net.loss(images(512), dropped=0.25)
    gone = float((~seen["visible"][:, 0]).float().mean())
    assert gone == pytest.approx(0.25, abs=0.06)


@torch.no_grad()
def test_8_the_renderer_sees_codes_alone_in_one_pass(monkeypatch):
    net, calls = tiny_selftok(renderer=True), []
    run = type(net.renderer)._run
    monkeypatch.setattr(type(net.renderer), "_run", lambda self, *given: calls.append(given[1]) or run(self, *given))
    vectors = torch.randn(2, 4, 3)
    found = net.render(vectors)
    assert found.shape == (2, 3, 8, 8) and len(calls) == 1 and calls[0].tolist() == [1, 1]
    for code in range(4):
        other = vectors.clone()
        other[:, code] += 1
        assert not torch.allclose(net.render(other), found)
