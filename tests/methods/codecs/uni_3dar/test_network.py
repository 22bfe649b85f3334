"""Entries, network and sampler: nothing leaks, a translation changes nothing, the cache changes nothing."""

import dataclasses
import math

import pytest
import torch

from laconic.methods.codecs.uni_3dar.entries import IGNORED, Writer, batched
from laconic.methods.codecs.uni_3dar.network import Sizes, Uni3DARNet, rotated, rotations
from laconic.methods.codecs.uni_3dar.octree import Atom, grown
from laconic.methods.codecs.uni_3dar.sampling import grow, sampler
from laconic.methods.codecs.uni_3dar.shapes import ANGLES, BOND, molecule, shell

SIZES = Sizes(levels=4, width=48, depth=2, heads=2, kinds=4)


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Uni3DARNet(SIZES).eval()
    for p in made.parameters():
        p.data.mul_(3.0)
    return made


def written(number, doubled=True):
    writer = Writer(SIZES.grid, SIZES.kinds, doubled)
    growth = grown(*molecule(number), SIZES.grid)
    return writer, growth, writer.whole(growth)


def test_3_the_length_is_twice_the_tokens_and_two():
    _, growth, rows = written(3)
    assert len(rows) == 2 * len(growth.chosen) + 2
    entries = batched([rows], Writer(SIZES.grid, 4).vocabulary)
    assert int(entries.trees.sum() + entries.atoms.sum()) == len(growth.chosen)
    masks = entries.types[0] == Writer(SIZES.grid, 4).vocabulary.mask
    assert torch.equal(masks[:-2], entries.targets[0, :-2, 0] != IGNORED)  # predicted at mask entries alone


def test_entries_say_where_and_what():
    writer, growth, rows = written(3)
    (node, choice), first, second = growth.chosen[0], rows[0], rows[1]
    middle = SIZES.grid.side * SIZES.bins / 2
    assert first == (writer.vocabulary.mask, (4, 4, 4), 5, (middle,) * 3, (choice - 1, IGNORED, IGNORED, IGNORED))
    assert second[0] == 4 + choice - 1 and second[3] == first[3] and second[4] == (IGNORED,) * 4
    node, atom = growth.chosen[-1]
    mask, value = rows[-4], rows[-3]
    assert mask[3] == tuple((c + 0.5) * 8 for c in node.corner) and mask[4] == (atom.kind, *atom.bins)
    assert value[3] == tuple(c * 8.0 + b for c, b in zip(node.corner, atom.bins, strict=True)) and value[1] == atom.bins


@torch.no_grad()
def test_5_a_value_changes_nothing_at_its_own_mask_or_before(net):
    writer, _, rows = written(5)
    entries = batched([rows], writer.vocabulary)
    before, _ = net(entries)
    at = 7  # the value entry of the fourth node
    types = entries.types.clone()
    types[0, at] = (types[0, at] - 4 + 1) % 255 + 4
    after, _ = net(dataclasses.replace(entries, types=types))
    assert torch.equal(before[0, :at], after[0, :at])
    assert (before[0, at:] - after[0, at:]).abs().max() > 1e-2


@torch.no_grad()
def test_6_teacher_forced_sampling_is_the_whole_pass(net):
    """Entry by entry with a cache: the tokeniser's own sequence, and the same states."""
    writer, growth, rows = written(7)
    whole, _ = net(batched([rows], writer.vocabulary))
    wanted, states = [choice for _, choice in growth.chosen], []

    def choose(node, state):
        states.append(state)
        return wanted[len(states) - 1]

    again = grow(net, choose, 1000)
    assert again.chosen == growth.chosen
    torch.testing.assert_close(torch.stack(states), whole[0, 0:-2:2], atol=1e-4, rtol=1e-4)
    states.clear()
    assert grow(net, choose, 3) is None


@torch.no_grad()
def test_7_a_common_translation_changes_no_attention(net):
    writer, _, rows = written(9)
    entries = batched([rows], writer.vocabulary)
    moved = dataclasses.replace(entries, at=entries.at + torch.tensor([40.0, -7.0, 300.0]))
    torch.testing.assert_close(net(moved)[0], net(entries)[0], atol=2e-3, rtol=2e-3)
    single = dataclasses.replace(entries, at=entries.at * torch.tensor([1.0, 1.0, 1.1]))
    assert (net(single)[0] - net(entries)[0]).abs().max() > 1e-2


def test_rotations_are_a_loop_over_axes():
    at = torch.tensor([[[3.0, 5.0, 7.0]]])
    angles, x = rotations(at, 16), torch.randn(1, 1, 1, 16)
    want = [at[0, 0, axis] * 10000 ** (-i / 2) for axis in range(3) for i in range(2)] + [0.0, 0.0]
    torch.testing.assert_close(angles[0, 0], torch.tensor(want))
    y = rotated(x, angles)
    for i, angle in enumerate(want):
        a, b = float(x[0, 0, 0, i]), float(x[0, 0, 0, i + 8])
        assert float(y[0, 0, 0, i]) == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-5)
        assert float(y[0, 0, 0, i + 8]) == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-5)


def test_8_what_is_sampled_is_a_tree(net):
    for seed in range(3):
        choose, logs = sampler(net, 1.0, seed)
        growth = grow(net, choose, 400)
        if growth is None:
            continue
        cells = sum(c.bit_count() for node, c in growth.chosen if node.level == 1)
        atoms = [c for _, c in growth.chosen if isinstance(c, Atom)]
        assert len(atoms) == cells and len(logs) == 4 * cells and all(log <= 0 for log in logs)


@torch.no_grad()
def test_losses_are_a_loop_over_mask_entries(net):
    writer, _, rows = written(11)
    padded = batched([rows, written(12)[2]], writer.vocabulary)
    told = [float(x) for x in net.losses(padded)]
    want = [0.0, 0.0, 0.0]
    for one in (rows, written(12)[2]):
        hidden, _ = net(batched([one], writer.vocabulary))
        for state, row in zip(hidden[0], one, strict=True):
            kind, *bins = row[4]
            if kind == IGNORED:
                continue
            if bins[0] == IGNORED:
                want[0] -= float(net.tree(state).log_softmax(-1)[kind])
                continue
            for i, value in enumerate((kind, *bins)):
                want[min(i, 1) + 1] -= float(net.point.heads[i](state).log_softmax(-1)[value])
                if i < 3:
                    state = state + net.point.chosen[i].weight[value]
    assert told == pytest.approx(want, rel=1e-3)


def test_without_mask_entries_nodes_are_predicted_one_entry_before():
    _, growth, rows = written(3, doubled=False)
    assert len(rows) == len(growth.chosen) + 2
    targets = [row[4][0] for row in rows[:-2]]
    assert targets == [c.kind if isinstance(c, Atom) else c - 1 for _, c in growth.chosen]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="doubled=true"):
        grow(Uni3DARNet(dataclasses.replace(SIZES, doubled=False)), lambda node, state: 1, 9)


@pytest.mark.parametrize("seed", range(5))
def test_molecules_have_one_bond_and_the_angles_of_their_kinds(seed):
    at, kinds = molecule(seed)
    bonds = (at[1:] - at[:-1]).double()
    torch.testing.assert_close(bonds.norm(dim=1), torch.full((len(bonds),), BOND, dtype=torch.float64), atol=1e-4, rtol=0)
    for i in range(1, len(bonds)):
        angle = math.degrees(math.acos(float(-bonds[i - 1] @ bonds[i]) / BOND**2))
        assert angle == pytest.approx(ANGLES[int(kinds[i]) // 2], abs=0.1)
    assert len(torch.unique((at / 0.4).floor(), dim=0)) == len(at)


def test_shells_are_closed_surfaces():
    for seed in range(6):
        at, kinds = shell(seed)
        solid = {tuple(row) for row in at.int().tolist()}
        assert 40 < len(solid) == len(at) and len(set(kinds.tolist())) == 1
        outside, seen = [(-1, -1, -1)], {(-1, -1, -1)}
        while outside:  # what can be reached from outside without passing the shell
            x, y, z = outside.pop()
            for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                cell = (x + step[0], y + step[1], z + step[2])
                if cell not in seen and cell not in solid and all(-1 <= c <= 16 for c in cell):
                    seen.add(cell)
                    outside.append(cell)
        assert len(seen) < 18**3 - len(solid)  # something is inside
