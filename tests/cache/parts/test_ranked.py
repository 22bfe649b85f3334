"""Keys rotated to their rank when they are attended, against keys before RoPE that are rotated there one by one."""

from types import SimpleNamespace

import pytest
import torch
from helpers.reference import observe, rope, slow_attend, slow_rotate

from laconic.cache.parts.ranked import RankedPart, by_rank, token_positions, turned
from laconic.cache.rollback import Drafts
from laconic.errors import SessionError
from laconic.ops.attend import merge
from laconic.step import Step

D, SCALE = 8, 8**-0.5


def rotated(x, places):
    """x [B, H, n, D] before RoPE, places [B, H, n] -> every vector rotated to its place, one at a time."""
    out = x.clone()
    for b in range(x.shape[0]):
        for h in range(x.shape[1]):
            for j in range(x.shape[2]):
                out[b, h, j] = slow_rotate(x[b, h, j], int(places[b, h, j]))
    return out


class Layer:
    """What a part needs of its layer: the pass, RoPE, and the parts, since ranks run on over all of them."""

    def __init__(self, step, *parts):
        self.cache = SimpleNamespace(step=step, phases=lambda number, positions: rope(positions, D))
        self.number, self.parts, self.drafts = 0, list(parts), Drafts()
        for part in parts:
            part.link(self)

    @property
    def lengths(self):
        return sum(part.lengths for part in self.parts)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored(valid=None):
    """A part of 2 rows, 2 heads, 5 entries out of 40 tokens, in no order; the plain keys and their ranks."""
    plain, values = random(2, 2, 5, D), random(2, 2, 5, D, seed=1)
    index = torch.tensor([[[7, 3, 31, 0, 12], [1, 2, 3, 38, 39]], [[20, 10, 5, 2, 1], [0, 1, 2, 3, 4]]])
    shift = torch.tensor([0, 2])[:, None, None]  # the second row began with two tokens of padding
    position = index - shift
    rank = index.argsort(-1).argsort(-1)
    columns = {"index": index, "position": position, "rank": rank, "mass": torch.rand(2, 2, 5)}
    if valid is not None:
        columns["valid"] = valid
    return plain, values, position, columns


@pytest.mark.parametrize("t", [1, 3])
def test_attention_equals_keys_before_rope_rotated_to_their_rank(t):
    plain, values, position, columns = stored()
    step = Step(40, t, torch.stack([torch.arange(40, 40 + t), torch.arange(38, 38 + t)]), [40 + t, 38 + t])
    part = RankedPart(rotated(plain, position), values, columns)
    Layer(step, part)
    q, new, new_values = random(2, 4, t, D, seed=2), random(2, 2, t, D, seed=3), random(2, 2, t, D, seed=4)
    at = torch.tensor([40, 38])[:, None, None] + torch.arange(t)
    rank, expected = columns["rank"], plain
    if t == 1:  # a decoded token is stored before it attends
        part.append(rotated(new, at.expand(2, 2, t)), new_values, {"index": torch.full((2, 2, 1), 40)})
        assert part.columns["rank"][..., -1].tolist() == [[5, 5], [5, 5]]
        assert part.columns["position"][..., -1].tolist() == [[40, 40], [38, 38]]
        expected, values = torch.cat([plain, new], 2), torch.cat([values, new_values], 2)
        rank = torch.cat([rank, torch.full((2, 2, 1), 5)], -1)
    out, lse = part.attend(rotated(q, at.expand(2, 4, t)), SCALE, None)
    queries = rotated(q, (5 + torch.arange(t)).expand(2, 4, t))
    want, want_lse = slow_attend(queries, rotated(expected, rank), values, SCALE)
    torch.testing.assert_close(out.double(), want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-4, rtol=1e-4)


def test_padding_has_no_rank():
    valid = torch.ones(2, 2, 5, dtype=torch.bool)
    valid[1, :, 4] = False  # of the second row four entries are real
    plain, values, position, columns = stored(valid)
    columns["rank"] = columns["index"].masked_fill(~valid, 99).argsort(-1).argsort(-1)
    arriving = torch.tensor([[True, True, True], [False, True, True]])
    positions = torch.tensor([[40, 41, 42], [0, 38, 39]])
    part = RankedPart(rotated(plain, position), values, columns)
    Layer(Step(40, 3, positions, [43, 40], valid=arriving), part)
    q = random(2, 4, 3, D, seed=2)
    out, _ = part.attend(rotated(q, positions[:, None].expand(2, 4, 3)), SCALE, None)
    ranks = torch.tensor([[5, 6, 7], [0, 4, 5]])[:, None].expand(2, 4, 3)
    bias = torch.zeros(2, 2, 5).masked_fill(~valid, float("-inf"))
    want, _ = slow_attend(rotated(q, ranks), rotated(plain, columns["rank"]), values, SCALE, bias=bias)
    torch.testing.assert_close(out[0].double(), want[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out[1, :, 1:].double(), want[1, :, 1:], atol=1e-4, rtol=1e-4)
    new = {"index": torch.arange(40, 43).expand(2, 2, 3), "valid": arriving[:, None].expand(2, 2, 3)}
    part.append(random(2, 2, 3, D), random(2, 2, 3, D), new)
    assert part.columns["rank"][0, 0, 5:].tolist() == [5, 6, 7] and part.columns["rank"][1, 1, 6:].tolist() == [4, 5]


@pytest.mark.parametrize("t", [1, 3])
def test_ranks_run_on_from_part_to_part(t):
    """The entries in two parts, as in a fork, attend as they do in one."""
    plain, values, position, columns = stored()
    step = Step(40, t, torch.arange(40, 40 + t)[None], [40 + t] * 2)
    q, new = random(2, 4, t, D, seed=2), (random(2, 2, t, D, seed=3), random(2, 2, t, D, seed=4))
    index = {"index": torch.arange(40, 40 + t).expand(2, 2, t)}
    whole = RankedPart(rotated(plain, position), values, columns)
    Layer(step, whole)
    whole.append(*new, index)
    first = RankedPart(rotated(plain, position), values, columns)
    layer = Layer(step, first)
    layer.parts.append(first.followed_by(*new, index))
    assert [x.tolist() for x in torch.cat([part.columns["rank"] for part in layer.parts], -1)] == [
        x.tolist() for x in whole.columns["rank"]
    ]
    got, lse = merge([part.attend(q, SCALE, None) for part in layer.parts])
    want, want_lse = whole.attend(q, SCALE, None)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, want_lse, atol=1e-5, rtol=1e-5)


def test_turning_keeps_yarns_factor_and_channels_without_rope():
    x = random(1, 2, 3, D)
    turn = torch.tensor([[[3, -2, 0]]])

    def partial(positions):
        cos, sin = rope(positions, D - 4)
        return 1.3 * cos, 1.3 * sin

    out = turned(x, turn, partial)
    for h in range(2):
        for j in range(3):
            want = torch.cat([slow_rotate(x[0, h, j, :4], int(turn[0, 0, j])), x[0, h, j, 4:]])
            torch.testing.assert_close(out[0, h, j], want, atol=1e-5, rtol=1e-5)
    assert turned(x.bfloat16(), turn, partial).dtype == torch.bfloat16


def test_turning_back_and_forth_is_the_identity():
    x, place = random(1, 2, 5, D), torch.arange(10).view(1, 2, 5) * 370

    def rotary(positions):
        return rope(positions, D)

    torch.testing.assert_close(turned(turned(x, -place, rotary), place, rotary), x)
    assert not torch.allclose(turned(x, place, rotary), x)


def test_an_observation_by_rank_shows_what_was_attended():
    obs = observe(n=9, t=2)
    rank = torch.tensor([3, 0, 1, 2, 4, 5, 6, 7, 8]).expand(2, 2, 9)
    position = torch.tensor([20, 1, 5, 9, 30, 31, 32, 33, 34]).expand(2, 2, 9)
    turned_seen = by_rank(obs, rank, position)
    turn = rank - position
    torch.testing.assert_close(turned_seen.keys, rotated(obs.keys, turn), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turned_seen.queries, rotated(obs.queries, turn[:, [0, 0, 1, 1], 7:]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(turned_seen.window(2), obs.window(2))


def test_positions_come_from_the_column_or_are_counted_back():
    obs = observe(n=6, t=2)
    assert token_positions(obs)[1, 1].tolist() == [0, 1, 2, 3, 4, 5]
    obs.step.position_ids = torch.tensor([[4, 5], [1, 2]])
    assert token_positions(obs)[1, 1].tolist() == [-3, -2, -1, 0, 1, 2]
    obs.columns = {"position": torch.tensor([0, 7, 2, 9]).expand(2, 2, 4)}
    assert token_positions(obs)[1, 1].tolist() == [0, 7, 2, 9, 1, 2]


def test_saved_and_loaded_it_attends_as_before():
    plain, values, position, columns = stored()
    part = RankedPart(rotated(plain, position), values, columns)
    layer = Layer(Step(40, 1, torch.tensor([[40], [38]]), [41, 39]), part)
    loaded = RankedPart.from_tensors(part.tensors())
    with pytest.raises(SessionError, match="link"):
        loaded.attend(random(2, 4, 1, D), SCALE, None)
    loaded.link(layer)
    q = random(2, 4, 1, D)
    torch.testing.assert_close(loaded.attend(q, SCALE, None)[0], part.attend(q, SCALE, None)[0])
    assert not part.plain and loaded.nbytes == part.nbytes == 2 * 2 * 2 * 5 * D * 4
