"""PVC's network against slow references. "line n" is what the card must show."""

import math

import pytest
import torch
from helpers.streaming_tools import live_numbers, stirred, video_testbed
from torch.nn.functional import silu

from laconic import UnsupportedModelError
from laconic.methods.tokens.pvc.film import SeenFilm
from laconic.methods.tokens.pvc.network import CODE, Progressive, TemporalAttention, code, plain_layers, unshuffle

LAYERS, WIDTH, PLACES = 2, 24, 37


@pytest.fixture(scope="module")
def host():
    return video_testbed()[0]


@pytest.fixture(scope="module")
def tower(host):
    return host.model.vision_tower


@pytest.fixture(scope="module")
def net(host):
    torch.manual_seed(0)
    return stirred(Progressive(host, LAYERS, (3,), 64, "causal"))


def states(tower, net, count, seed=0):
    """Different frames before the network's first layer, [1, T, N, C]."""
    pixels = torch.randn(count, 3, 48, 48, generator=torch.Generator().manual_seed(seed))
    return tower(pixels, output_hidden_states=True).hidden_states[net.first][None]


def test_a_fresh_network_is_the_encoder_and_repeats_are_alike(host, tower):
    """line 1: tokens are the projector on means of blocks of the model's own features"""
    net = Progressive(host, LAYERS, (3,), 64, "causal")
    pixels = torch.randn(1, 3, 48, 48)
    seen = tower(pixels, output_hidden_states=True).hidden_states
    made, _ = net(tower, seen[net.first][None].expand(1, 4, -1, -1), 3)
    grid = seen[-2][0, 1:].view(6, 6, WIDTH)
    means = torch.stack([grid[r : r + 3, c : c + 3].mean((0, 1)) for r in (0, 3) for c in (0, 3)])
    want = host.model.multi_modal_projector(means)
    for frame in made[0]:
        torch.testing.assert_close(frame, want, rtol=1e-4, atol=1e-5)


def test_only_step_and_attention_together_tell_repeats_apart(host, tower, net):
    """line 2: attention over equal frames is the same for all of them, unless they know their step"""
    still = states(tower, net, 1).expand(1, 4, -1, -1)
    made, _ = net(tower, still, 3)
    assert all(float((made[0, t] - made[0, 0]).abs().max()) > 1e-3 for t in (1, 2, 3))
    untold = stirred(Progressive(host, LAYERS, (3,), 64, "causal", steps=False))
    made, _ = untold(tower, still, 3)
    torch.testing.assert_close(made, made[:, :1].expand(-1, 4, -1, -1), rtol=1e-4, atol=1e-5)


def test_a_frame_sees_the_ones_before_it(net, tower):
    """line 3"""
    shown = states(tower, net, 5)
    changed = shown.clone()
    changed[:, 2] += torch.randn(WIDTH)
    one, other = (net(tower, x, 3)[0][0] for x in (shown, changed))
    assert torch.equal(one[:2], other[:2])
    assert all(float((one[t] - other[t]).abs().max()) > 1e-4 for t in (2, 3, 4))


def attention(order="causal", window=64):
    torch.manual_seed(2)
    return stirred(TemporalAttention(WIDTH, 2, order, window), 0.2)


def test_attention_over_time_equals_a_loop_and_places_are_independent():
    """line 3: one attention alone; line 5: with one frame it is its value path"""
    layer, x, c = attention(), torch.randn(1, 3, 4, WIDTH), torch.randn(3, WIDTH)
    out, _ = layer(x, c)
    for p in range(4):
        rows = []
        for t in range(3):
            scale, shift = layer.modulation.out(torch.nn.functional.silu(c[t])).chunk(2)
            y = x[0, t, p]
            y = (y - y.mean()) / (y.var(unbiased=False) + 1e-5).sqrt()
            rows.append(layer.qkv(y * (1 + scale) + shift).view(3, 2, WIDTH // 2))
        for t in range(3):
            heads = []
            for h in range(2):
                logits = torch.stack([rows[t][0, h] @ rows[s][1, h] for s in range(t + 1)]) / math.sqrt(WIDTH // 2)
                heads.append(sum(w * rows[s][2, h] for s, w in enumerate(logits.softmax(0))))
            torch.testing.assert_close(out[0, t, p], layer.gate * layer.out(torch.cat(heads)), rtol=1e-4, atol=1e-5)
    one, _ = layer(x[:, :1], c[:1])
    torch.testing.assert_close(one[0, 0], out[0, 0], rtol=1e-4, atol=1e-5)


def test_tokens_equal_layers_run_by_hand(host, tower):
    """Attention over time is between attention and MLP; tokens know the step of their frame, which ends at the window."""
    net = stirred(Progressive(host, LAYERS, (3,), 3, "causal"))
    shown = states(tower, net, 5)
    c, x = net.clock(code(torch.tensor([0, 1, 2, 2, 2]))), shown
    for number, temporal in enumerate(net.temporal, net.first):
        layer = plain_layers(tower)[number]
        x = x + layer.self_attn(layer.layer_norm1(x[0]), attention_mask=None)[0][None]
        x = x + temporal(x, c)[0]
        x = x + layer.mlp(layer.layer_norm2(x))
    scale, shift = net.modulation.out(silu(c))[:, None].chunk(2, -1)
    want = net.read["3"](unshuffle((x[0, :, 1:] * (1 + scale) + shift)[None], 6, 3))
    torch.testing.assert_close(net(tower, shown, 3)[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("order", "window", "seen"), [("causal", 2, [1, 2]), ("both", 2, [1, 2, 3]), ("both", 9, [0, 1, 2, 3])]
)
def test_how_far_a_frame_sees(order, window, seen):
    layer, x, c = attention(order, window), torch.randn(1, 4, 1, WIDTH), torch.randn(4, WIDTH)
    want = layer(x, c)[0][0, 2]
    for t in range(4):
        changed = x.clone()
        changed[0, t] = torch.randn(1, WIDTH)
        assert (not torch.allclose(layer(changed, c)[0][0, 2], want, atol=1e-5)) is (t in seen)


def test_without_attention_frames_are_read_one_by_one(host, tower, net):
    alone = stirred(Progressive(host, LAYERS, (3,), 64, "none"))
    shown = states(tower, net, 3)
    changed = shown.clone()
    changed[:, 0] += torch.randn(WIDTH)
    assert torch.equal(alone(tower, shown, 3)[0][:, 1:], alone(tower, changed, 3)[0][:, 1:]) and not len(alone.temporal)


@pytest.mark.parametrize("window", [64, 3])
def test_streaming_equals_all_frames_at_once(host, tower, window):
    """line 4"""
    net = stirred(Progressive(host, LAYERS, (3,), window, "causal"))
    shown = states(tower, net, 8)
    whole, _ = net(tower, shown, 3)
    for pieces in (1, 3):
        film = SeenFilm(net, tower, 3)
        for part in shown[0].split(pieces):
            film.read(part)
        torch.testing.assert_close(film.soft(), whole[0].flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_numbers_of_tokens_and_blocks_lose_nothing(net, tower):
    """line 6"""
    assert net(tower, states(tower, net, 5), 3)[0].shape == (1, 5, 4, 32)
    x = torch.randn(1, 2, 16, 3)
    found = unshuffle(x, 4, 2)
    grid = x.view(1, 2, 4, 4, 3)
    for i, (r, c) in enumerate(((0, 0), (0, 2), (2, 0), (2, 2))):
        block = grid[:, :, r : r + 2, c : c + 2].flatten(2, 3)
        torch.testing.assert_close(found[:, :, i].view(1, 2, 4, 3), block)


def test_videos_of_a_batch_do_not_mix(net, tower):
    """line 7"""
    shown = torch.cat([states(tower, net, 3), states(tower, net, 3, 1)])
    both, _ = net(tower, shown, 3)
    torch.testing.assert_close(both[:1], net(tower, shown[:1], 3)[0], rtol=1e-4, atol=1e-5)


def test_hours_hold_a_window_of_keys_and_tokens_that_cover_the_video(host, tower):
    """Keys and values of window - 1 frames and tokens of at most `most`, however many frames there were."""
    net = stirred(Progressive(host, LAYERS, (3,), 4, "causal"))
    film, held, shown = SeenFilm(net, tower, 3, most=8), [], states(tower, net, 5)[0]
    for _ in range(20):
        film.read(shown)
        held.append(live_numbers(film))
        numbers = [number for number, _ in film.kept]
        assert numbers == list(range(0, film.seen, film.stride)) and len(numbers) <= 8
    assert max(held) <= LAYERS * 2 * 3 * PLACES * WIDTH + 8 * 4 * 32


def test_frames_are_dropped_when_there_are_too_many_and_not_before(net, tower):
    film, held = SeenFilm(net, tower, 3, most=4), []
    for frame in states(tower, net, 9)[0].split(1):
        film.read(frame)
        held.append([number for number, _ in film.kept])
    assert [len(numbers) for numbers in held] == [1, 2, 3, 4, 3, 3, 4, 4, 3]
    assert held[3] == [0, 1, 2, 3] and held[7] == [0, 2, 4, 6] and held[8] == [0, 4, 8]


def test_codes_and_layers_that_do_not_fit(host):
    found = code(torch.tensor([0, 3]))
    assert found.shape == (2, CODE) and found[0].tolist() == [0.0] * 128 + [1.0] * 128
    assert float(found[1, 5]) == pytest.approx(math.sin(3 * 10000 ** (-5 / 128)), abs=1e-5)
    for wrong, match in (
        ((4, (3,)), "choose 1 to 3"),
        ((0, (3,)), "choose 1 to 3"),
        ((2, (4,)), "blocks=4 does not divide"),
    ):
        with pytest.raises(ValueError, match=match):
            Progressive(host, *wrong, 64, "causal")
    with pytest.raises(UnsupportedModelError, match="CLIP and SigLIP"):
        from helpers.vision_zoo import CASES

        plain_layers(CASES["internvl"].build().model.vision_tower)
