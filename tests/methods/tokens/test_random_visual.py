"""RandomVisual: a seeded uniform subset."""

import pytest
import torch
from helpers.slow_attention import numbers, stay
from helpers.vision_exact import generate, run
from helpers.vision_tools import inputs

from laconic import compress
from laconic.methods.tokens.random_visual import RandomVisual
from laconic.stream.draws import drawn


@pytest.mark.parametrize(
    ("layer", "positions", "count"), [(0, None, 36), (0, "gather", 36), (2, None, 12), (2, "renumber", 12)]
)
def test_equals_layers_run_by_hand(vlm, layer, positions, count):
    """Must show 8: positions renumbered at the input, gathered before a layer, or as asked."""
    given = inputs([(3, 9)])
    keep = (layer * 144 + (8 - layer) * count) / (8 * 144)
    with compress(vlm, RandomVisual(layer=layer, positions=positions, keep=keep, seed=5)) as session:
        ours = generate(vlm, given)[0]
    chosen = sorted(drawn(144, 5).argsort(descending=True)[:count].tolist())
    renumbered = positions == "renumber" or (positions is None and layer == 0)

    def change(i, h, v, p):
        return stay(h, v, p, [numbers(v)[n] for n in chosen], renumbered) if i == layer else (h, v, p)

    logits, _, lengths = run(vlm, given, change)
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)
    assert [x.stored - 3 for x in session.cache.compressed()] == lengths


def test_all_tokens_are_as_likely():
    counts = torch.zeros(30)
    for seed in range(2000):
        counts[drawn(30, seed).topk(6).indices] += 1
    assert (counts / 2000 - 0.2).abs().max() < 0.04


@pytest.mark.parametrize("method", [RandomVisual(keep=1.0), RandomVisual(tokens=144), RandomVisual(layer=8, keep=0.1)])
def test_nothing_to_drop_changes_nothing(vlm, method):
    """Must show 1."""
    given = inputs([(3, 9), (8, 2)])
    plain = generate(vlm, given)
    with compress(vlm, method):
        torch.testing.assert_close(generate(vlm, given), plain, rtol=1e-5, atol=1e-5)


def test_a_batch_draws_what_each_row_alone_draws(vlm):
    given = inputs([(3, 9), (8, 2)])
    with compress(vlm, RandomVisual(keep=0.2)) as session, torch.no_grad():
        vlm(**given)
    rows = session.trace.events[0].stream
    assert [n - 3 for n in rows[0].tolist() if 3 <= n < 147] == [n - 10 for n in rows[1].tolist() if 10 <= n < 154]


def test_unknown_positions_are_refused():
    with pytest.raises(ValueError, match="random_visual: positions='x': choose 'gather', 'renumber' or None"):
        RandomVisual(keep=0.5, positions="x")
