"""DiffRate against a CLIP tower run by hand. "line n" is what the card must show."""

import pytest
import torch
from helpers.encoder_by_hand import GREEDY, attention, decode, entered, sharp_vlm, start
from helpers.vision_tools import inputs, laconic_hooks
from torch.utils.flop_counter import FlopCounterMode

from laconic import BudgetError, compress
from laconic.artifact import Artifact
from laconic.methods.encoder.diffrate.method import DiffRate, importance, reduced
from laconic.methods.encoder.diffrate.network import Soft, layer_step
from laconic.methods.encoder.diffrate.schedule import Schedule, macs
from laconic.ops.bipartite import Merging
from laconic.stream.tower import Between

SCHEDULE = Schedule((145, 130, 90, 70), (145, 110, 80, 37))


@pytest.fixture(scope="module")
def model():
    return sharp_vlm()


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("diffrate") / "schedules.safetensors"
    found = [{"keep": 0.25, "prune": list(SCHEDULE.prune), "merge": list(SCHEDULE.merge)}]
    Artifact.of("diffrate", "trained", model, {"patches": 144, "schedules": found}).save(path)
    return str(path)


def slow(model, pixels):
    """The algorithm with tokens sorted as published: (patches after the feature layer, members of each) by first member."""
    tower = model.model.vision_tower
    x, size = start(tower, pixels[None])[0], torch.ones(145)
    members = [[i] for i in range(145)]
    for layer, prune, merge in zip(tower.encoder.layers, SCHEDULE.prune, SCHEDULE.merge, strict=False):
        added, q, k = attention(layer, x, size.log())
        x = x + added
        row = (q[:, :1] @ k.mT * layer.self_attn.head_dim**-0.5 + size.log()).softmax(-1).mean(0)[0]
        order = [0, *sorted(range(1, len(x)), key=lambda i: -float(row[i]))]
        x, size, members = x[order][:prune], size[order][:prune], [members[i] for i in order[:prune]]
        groups, mass = [[j] for j in range(min(merge, len(x)))], size.clone()
        for i in range(merge, len(x)):
            near = torch.cosine_similarity(x[i : i + 1], x[1:merge], -1)
            j = 1 + int(near.argmax())
            groups[j].append(i)
            mass[j] += near.max() * size[i]
        x = torch.stack([x[group].mean(0) for group in groups])
        size, members = mass[: len(groups)].clamp(min=1), [[m for i in group for m in members[i]] for group in groups]
        x = x + layer.mlp(layer.layer_norm2(x))
    order = sorted(range(1, len(x)), key=lambda k: min(members[k]))
    return x[order], [sorted(i - 1 for i in members[k]) for k in order]


def test_tokens_equal_the_loop(model, artifact):
    """lines 5 and 7: what enters the decoder, where, and what it answers; dropped patches are in no cluster"""
    given = inputs([(3, 9), (8, 4)])
    session, out, hidden, positions = entered(model, DiffRate(keep=0.25, artifact=artifact), given)
    assert hidden.shape[1] == 12 + 36 and positions[0].tolist() == list(range(48))
    for row, before in enumerate((3, 8)):
        x, clusters = slow(model, given["pixel_values"][row])
        want = model.model.multi_modal_projector(x)
        torch.testing.assert_close(hidden[row, before : before + 36], want, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            torch.stack([step[row] for step in out.logits]), decode(model, given, row, want), rtol=1e-3, atol=1e-3
        )
        event = session.trace.events[0]
        pad = int((given["attention_mask"][row] == 0).sum()) + before
        for cluster in clusters:
            assert {int(event.merged[row, pad + i]) for i in cluster} == {pad + cluster[0]}
        dropped = set(range(144)) - {i for cluster in clusters for i in cluster}
        assert dropped and {int(event.merged[row, pad + i]) for i in dropped} == {-1}


def test_masks_give_what_removal_gives(model):
    """line 2: the training path with the same whole numbers, and CLS after every layer"""
    tower, pixels = model.model.vision_tower, inputs([(3, 9)])["pixel_values"]
    x = start(tower, pixels)
    soft = Soft(x, torch.ones(1, 145), torch.ones(1, 145))
    size = torch.ones(1, 145)
    for layer, (entering, p, m) in zip(tower.encoder.layers, SCHEDULE.counts(145), strict=False):
        soft = layer_step(layer, soft, (None, None), (p, m), True)
        added, q, k = attention(layer, x[0], size[0].log())
        x = x + added
        between = Between(q[None], k[None], layer.self_attn.head_dim**-0.5, x, size, True)
        found = reduced(between, p, m) if m < entering else Merging.none(1, entering, x.device)
        x, size = found.merge(x, size), found.sizes(size)
        x = x + layer.mlp(layer.layer_norm2(x))
        there = soft.mask[0] > 0.5
        assert int(there.sum()) == m == x.shape[1]
        torch.testing.assert_close(soft.x[0, there], x[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(soft.size[0, there], size[0], rtol=1e-3, atol=1e-3)


def test_without_the_similarity_factor_sizes_of_a_merge_would_be_kept(model):
    """line 5: merged tokens are smaller than what was put into them, and never CLS"""
    torch.manual_seed(0)
    between = Between(torch.randn(2, 3, 9, 4), torch.randn(2, 3, 9, 4), 0.5, torch.randn(2, 9, 6), torch.ones(2, 9), True)
    found = reduced(between, 9, 4)
    assert bool((found.sizes(torch.ones(2, 9)).sum(-1) < 9).all())
    whole = Merging(found.to, found.count, found.weight)
    assert whole.sizes(torch.ones(2, 9)).sum(-1).tolist() == [9.0, 9.0]
    assert bool((found.to[:, 1:] > 0).all()) and found.to[:, 0].tolist() == [0, 0]
    dropped = reduced(between, 6, 4)
    assert (dropped.to < 0).sum(-1).tolist() == [3, 3]
    lowest = importance(between).sort(-1).indices[:, :3]
    assert bool((dropped.to.gather(1, lowest) < 0).all())


def test_big_tokens_rank_higher():
    """Importance is taken after the sizes are in the logits."""
    same = torch.ones(1, 1, 3, 2)
    between = Between(same, same, 1.0, torch.ones(1, 3, 2), torch.tensor([[1.0, 1.0, 5.0]]), True)
    assert importance(between)[0, 1:].tolist() == pytest.approx([1 / 7, 5 / 7])
    free = Between(same, same, 1.0, torch.ones(1, 3, 2), torch.tensor([[1.0, 1.0, 5.0]]), False)
    assert importance(free)[0].tolist() == pytest.approx([1 / 7, 1 / 7, 5 / 7])


def test_full_budget_changes_nothing(model):
    """line 1"""
    given = inputs([(3, 9)])
    want = model.generate(**given, **GREEDY)
    with compress(model, DiffRate(keep=1.0)) as session:
        got = model.generate(**given, **GREEDY)
    torch.testing.assert_close(torch.cat(got.logits), torch.cat(want.logits), rtol=1e-5, atol=1e-5)
    assert not session.trace.events


def test_the_encoder_costs_what_the_formula_says(artifact):
    model = sharp_vlm()
    model.model.vision_tower.set_attn_implementation("eager")
    pixels = inputs([(3, 9)])["pixel_values"]
    counts = [*SCHEDULE.counts(145), (37, 37, 37)]
    with compress(model, DiffRate(keep=0.25, artifact=artifact)), FlopCounterMode(display=False) as flops:
        model.model.vision_tower(pixels)
    heads = 192 // 4
    own = sum(2 * 192 * (p - m) * m + (2 * 4 * heads * entering if m < entering else 0) for entering, p, m in counts[:4])
    assert flops.get_total_flops() == 2 * macs(counts, 192, 768) + 2 * 144 * 192 * 3 * 64 + own
    assert laconic_hooks(model) == []


def test_bad_budgets(model, artifact):
    with pytest.raises(BudgetError, match="before the prompt is known"):
        DiffRate(tokens=20)
    with (
        pytest.raises(BudgetError, match=r"keep=0\.5: this artifact was made for 0\.25"),
        compress(model, DiffRate(keep=0.5, artifact=artifact)),
    ):
        pass
    with pytest.raises(ValueError, match="positions"):
        DiffRate(keep=0.25, positions="elsewhere")


def test_a_view_of_another_size_is_refused(model, tmp_path):
    path = tmp_path / "other.safetensors"
    found = [{"keep": 0.25, "prune": [50] * 4, "merge": [50] * 4}]
    Artifact.of("diffrate", "trained", model, {"patches": 49, "schedules": found}).save(path)
    with pytest.raises(BudgetError, match="learned for views of 49 patches, and one has 144"):
        entered(model, DiffRate(keep=0.25, artifact=str(path)), inputs([(3, 9)]))
