"""Correlation-guided compression against loops; numbers in the docstrings are the lines of what it must show."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.vision_tools import inputs, random_vlm
from helpers.vision_zoo import CASES, SIDE

import laconic
from laconic import BudgetError, UnsupportedModelError
from laconic.families.vision import VisionWatch, VisualSpan
from laconic.measure.cost import Shape
from laconic.methods.encoder.correlation_guided import CorrelationGuided, crops_of, local_count, repeats
from laconic.stream.contract import Stream
from laconic.stream.shares import spread
from laconic.tasks.scenes.scenes import SIZE
from laconic.testbed.vlm_model import PATCH

EDGE = SIZE // PATCH


def run(model, given, **options):
    """Tokens that stay in every batch row, and the session."""
    with laconic.compress(model, CorrelationGuided(**options)) as session, torch.no_grad():
        session.logits = model(**given).logits[:, -1]
    return [row[row >= 0].tolist() for row in session.trace.events[0].stream], session


def slow_density(keys, theta, share):
    """m, redundancy and density with a double loop."""
    keys = keys.double().numpy()
    lengths = np.linalg.norm(keys, axis=1)
    cosines = (keys @ keys.T / np.outer(lengths, lengths)).tolist()
    n = len(keys)
    m = [0] * n
    for i in range(n):
        for j in range(n):
            m[i] += int(i != j and cosines[i][j] > theta)
    r = sum(count > share * n for count in m) / n
    return m, 1 - r


def page(share, seed=0):
    """A white page of the random model's size with this share of its patches printed, from the top."""
    pixels = torch.ones(3, SIZE, SIZE)
    rows = round(share * EDGE) * PATCH
    pixels[:, :rows] = torch.randn(3, rows, SIZE, generator=torch.Generator().manual_seed(seed))
    return pixels


@pytest.fixture(scope="module")
def flat():
    """A model whose encoder has no position embeddings, so that blank patches are alike."""
    model = random_vlm()
    for name, parameter in model.model.vision_tower.named_parameters():
        if "position_embedding" in name:
            parameter.zero_()
    return model


@pytest.mark.parametrize("name", ["llava", "llava_next", "internvl"])
def test_nothing_exceeds_a_cosine_of_one(name):
    """1: theta = 1 keeps everything, and the output is the host's."""
    case = CASES[name]
    model, given = case.build(), case.inputs([[case.image(0, tiles=2), case.image(1)]])
    plain = model(**given).logits[:, -1]
    _, session = run(model, given, theta=1.0, least=1)
    assert session.stats.visual[0] == session.stats.visual_in
    torch.testing.assert_close(session.logits, plain, atol=1e-5, rtol=1e-5)
    assert int(repeats(torch.ones(300, 7), 1.0).sum()) == 0  # rounding does not lift a cosine above one
    assert repeats(torch.ones(300, 7), 0.9).tolist() == [299] * 300


def test_blank_and_noisy_crops(flat):
    """2: blank: `least` and the outliers; noise: all."""
    blank, noise = (inputs([(3, 9)]) | {"pixel_values": page(share)[None]} for share in (0.0, 1.0))
    look = {}
    for name, given in (("blank", blank), ("noise", noise)):
        visual = visual_of(flat, given, [0, 3])
        look[name] = attached(flat)._look(visual, visual.spans[0])
    assert look["blank"].density < 0.01 and look["noise"].density > 0.99
    outliers = int((look["blank"].deep > quartile_limit(look["blank"].deep)).sum())
    assert 16 <= run(flat, blank)[1].stats.visual[0] <= 16 + outliers
    assert run(flat, noise)[1].stats.visual[0] == EDGE**2


def quartile_limit(g):
    low, high = np.percentile(g.numpy(), [25, 75])
    return high + 1.5 * (high - low)


def attached(model, **options):
    method = CorrelationGuided(**options)
    method.attach(model)
    return method


def visual_of(model, given, layers):
    found = []
    with VisionWatch(model, layers) as watch, torch.no_grad():
        handle = model.base_model.language_model.layers[0].register_forward_pre_hook(lambda m, a: found.append(watch.visual))
        model(**given)
        handle.remove()
    return found[0]


def test_density_grows_with_the_printed_area(flat):
    """3: 0, 25, 50, 100 %; below 10 % of a page, white would no longer count as redundant."""
    densities, kept = [], []
    for share in (0.0, 0.25, 0.5, 1.0):
        given = inputs([(3, 9)]) | {"pixel_values": page(share)[None]}
        visual = visual_of(flat, given, [0, 3])
        densities.append(attached(flat)._look(visual, visual.spans[0]).density)
        kept.append(run(flat, given)[1].stats.visual[0])
    assert densities == pytest.approx([0, 0.25, 0.5, 1.0], abs=0.02)
    assert kept == sorted(kept) and kept[0] < kept[1] < kept[2] < kept[3]


@pytest.mark.parametrize("theta", [0.2, 0.5, 0.9])
def test_density_equals_the_double_loop(vlm, theta):
    """4."""
    given = inputs([(3, 9)]) | {"pixel_values": page(0.5)[None]}
    visual = visual_of(vlm, given, [0, 3])
    keys = visual.keys(visual.spans[0], 0).permute(1, 2, 0, 3).reshape(EDGE**2, -1)
    m, density = slow_density(keys, theta, 0.1)
    assert repeats(keys, theta).tolist() == m and sum(m) > 0
    assert attached(vlm, theta=theta)._look(visual, visual.spans[0]).density == pytest.approx(density)
    assert repeats(keys.repeat(3, 1), theta).tolist() == slow_density(keys.repeat(3, 1), theta, 0.1)[0]  # several blocks


class Page:
    """Crops without a model: planted keys and CLS attention, one token per patch."""

    def __init__(self, keys, low, deep):
        side = math.isqrt(len(keys[0]))
        self.values, grid = list(zip(keys, low, deep, strict=True)), torch.arange(side**2).view(side, side)
        self.spans = [VisualSpan(0, "image", 0, i + 1, 0, grid + i * side**2, grid + i * side**2) for i in range(len(keys))]
        self.side, self.family = side, type("Family", (), {"merges": False})

    def of(self, row, image, modality):
        return self.spans

    def keys(self, span, layer):
        return self.values[span.crop - 1][0].view(1, self.side, self.side, -1)

    def cls_attention(self, span, layer):
        return self.values[span.crop - 1][1 if layer == 0 else 2].view(1, self.side, self.side)

    def pool(self, span, x):
        return x.flatten(0, 1)


def planted(low, deep=None, **options):
    """A method, and one crop with this low-layer attention whose patches are all different."""
    n = len(low)
    visual = Page([torch.eye(n)], [low], [torch.ones(n) if deep is None else deep])
    method = CorrelationGuided(low=0, deep=1, **options)
    method._low, method._deep = 0, 1
    return method, visual


def test_drawing_is_by_p_without_replacement_and_repeats_with_its_seed():
    """5."""
    p = torch.tensor([0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.22, 0.1, 0.18])
    no = torch.zeros(9, dtype=torch.bool)
    draws = {1: torch.zeros(9), 4: torch.zeros(9)}
    method, visual = planted(p)
    crop = method._look(visual, visual.spans[0])
    for seed in range(1000):
        method.seed = seed
        crop = replace(crop, noise=method._noise(visual.spans[0]))
        for count, times in draws.items():
            chosen = method._choose(crop, count, no)
            assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == count
            times[chosen] += 1
    assert (draws[1] / 1000 - p / p.sum()).abs().max() < 0.05
    order = draws[4][p.argsort()]
    assert (order.diff() > -40).all() and order[-1] > 2 * order[0]  # two deviations between near-equal neighbours
    again = [planted(p, seed=s)[0]._look(visual, visual.spans[0]).noise.tolist() for s in (7, 7, 8)]
    assert again[0] == again[1] != again[2]
    method, visual = planted(p, draw="top")
    assert method._choose(method._look(visual, visual.spans[0]), 3, no).tolist() == [5, 6, 8]


def test_a_sequence_does_not_depend_on_its_batch(vlm):
    given = inputs([(3, 9), (8, 2)])
    both, _ = run(vlm, given, keep=0.3)
    for row in range(2):
        own = given["attention_mask"][row] == 1
        ids, pixels = given["input_ids"][row : row + 1, own], given["pixel_values"][row : row + 1]
        alone, _ = run(vlm, {"input_ids": ids, "pixel_values": pixels}, keep=0.3)
        start = int((~own).sum())
        assert [n - start for n in both[row]] == alone[0]


def test_outliers_are_those_of_numpy_and_none_of_a_constant():
    """6."""
    torch.manual_seed(0)
    deep = torch.randn(64).exp()
    method, visual = planted(torch.rand(64), deep)
    crop = replace(method._look(visual, visual.spans[0]), local=torch.full((64,), 1 / 64))
    no = torch.zeros(64, dtype=torch.bool)
    top = set(method._choose(replace(crop, deep=torch.ones(64)), 1, no).tolist())
    expected = set((deep.numpy() > quartile_limit(deep)).nonzero()[0].tolist())
    assert len(top) == 1 and expected
    assert set(method._choose(crop, 1, no).tolist()) == expected | top


@pytest.mark.parametrize("count", [1, 10, 40, 64])
def test_the_union_is_sorted_without_duplicates_and_no_larger_than_both(count):
    """7."""
    torch.manual_seed(1)
    deep = torch.randn(64).exp()
    method, visual = planted(torch.rand(64), deep)
    chosen = method._choose(method._look(visual, visual.spans[0]), count, torch.zeros(64, dtype=torch.bool))
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert count <= len(chosen) <= count + int((deep > quartile_limit(deep)).sum())


def test_counts():
    assert local_count(0.5, 1024, 16) == 512 and local_count(0.0, 1024, 16) == 16 and local_count(0.1, 9, 16) == 9
    assert local_count(0.501, 1000, 1) == 501


@pytest.mark.parametrize("options", [{"theta": 0.3, "least": 2}, {"keep": 0.6}])
def test_the_global_view_is_untouched_and_compute_is_saved_by_the_formula(options):
    """8."""
    case = CASES["llava_next"]
    model, image = case.build(), case.image(0, size=(64, 64))
    cells = case.cells(image)
    given = case.inputs([[image]])
    (rows,), session = run(model, given, **options)
    got = [cells[n - 2] for n in rows if 2 <= n < 2 + len(cells)]
    views = [sum(cell is not None and cell[0] == crop for cell in got) for crop in range(5)]
    assert views[0] == SIDE**2 and all(0 < n < SIDE**2 for n in views[1:])
    assert got.count(None) == cells.count(None)
    stats = session.stats
    assert stats.visual[0] == sum(views)
    before, after = (given["input_ids"].shape[1] - cut for cut in (0, len(list(filter(None, cells))) - sum(views)))
    shape = Shape.of(model, model.base_model.language_model)
    saved = shape.prefill_flops([before] * 3) - shape.prefill_flops([after] * 3)
    assert stats.prefill_flops_full == shape.prefill_flops([before] * 3)
    rows_of_head = given["input_ids"].shape[1] - len(list(filter(None, cells))) + sum(views)
    assert stats.prefill_flops == shape.prefill_flops([after] * 3, logits=rows_of_head) and saved > 0


def test_a_budget_is_met_and_must_leave_room_for_the_whole_view():
    case = CASES["llava_next"]
    model, given = case.build(), case.inputs([[case.image(0, size=(64, 64))]])
    for keep in (0.4, 0.7):
        assert run(model, given, keep=keep)[1].stats.visual[0] == round(keep * 5 * SIDE**2)
    with pytest.raises(BudgetError, match=r"ask for keep=0\.2500"):
        run(model, given, keep=0.2)


def document():
    """Four crops of 16 x 16 patches, printed to 100, 50, 12 and 0 %; blank patches have nearly the same key, and the CLS
    token attends to print 1.5 times as much."""
    torch.manual_seed(0)
    printed = [torch.arange(256) < 256 * share for share in (1.0, 0.5, 0.12, 0.0)]
    white = torch.randn(24)
    keys = [torch.where(ink[:, None], torch.randn(256, 24), white + 0.02 * torch.randn(256, 24)) for ink in printed]
    low = [(1 + 0.5 * ink) * (0.5 + torch.rand(256)) for ink in printed]
    return torch.cat(printed), Page(keys, low, [torch.rand(256) for _ in range(4)])


def kept_of(visual, **options):
    method = CorrelationGuided(low=0, deep=1, **options)
    method._low, method._deep = 0, 1
    n = 256 * 4
    every = torch.ones(1, n, dtype=torch.bool)
    visual.mask = every
    place = torch.arange(n)[None]
    stream = Stream(
        layer=0, depth=8, block=None, hidden=torch.zeros(1, n, 4), place=place, positions=place, valid=None, shown=every,
        protected=None, visual=visual, ids=place, obs=None, entry_bytes=8,
    )  # fmt: skip
    return method.cut(stream).keep[0]


def test_print_is_covered_better_than_at_one_ratio_or_at_random():
    """9: at equal tokens. A detector of white patches, which is told what is print, is the baseline to beat on clean scans;
    no method that does not see pixels beats it."""
    ink, visual = document()
    ours = kept_of(visual, keep=0.4)
    total = len(ours)
    assert total == round(0.4 * 1024)
    method = CorrelationGuided(low=0, deep=1, keep=0.4)
    method._low, method._deep = 0, 1
    no = torch.zeros(256, dtype=torch.bool)
    uniform = torch.cat(
        [
            span.tokens[method._choose(method._look(visual, span), count, no)]
            for span, count in zip(visual.spans, spread(total, [1] * 4, [256] * 4), strict=True)
        ]
    )
    drawn = torch.randperm(1024, generator=torch.Generator().manual_seed(1))[:total]
    white = ink.float().sort(descending=True, stable=True).indices[:total]
    cover = {name: int(ink[tokens].sum()) for name, tokens in {"ours": ours, "one ratio": uniform, "random": drawn}.items()}
    assert cover["ours"] > 1.3 * cover["one ratio"] and cover["ours"] > 1.3 * cover["random"]
    assert int(ink[white].sum()) >= cover["ours"]
    free = kept_of(visual)  # the densities alone: all print of full crops, about half of the rest by chance
    assert int(ink[free].sum()) / int(ink.sum()) > len(free) / 1024 + 0.2


def test_merging_averages_dropped_tokens_into_the_nearest_key(vlm):
    given = inputs([(3, 9)])
    seen = {}

    class Spy(CorrelationGuided):
        def cut(self, stream):
            seen["cut"] = super().cut(stream)
            seen["visual"], seen["hidden"] = stream.visual, stream.hidden
            return seen["cut"]

    spy = Spy(keep=0.3, merge=True)
    with laconic.compress(vlm, spy), torch.no_grad():
        vlm(**given)
    visual, cut = seen["visual"], seen["cut"]
    span = visual.spans[0]
    keys = visual.keys(span, 0).permute(1, 2, 0, 3).reshape(EDGE**2, -1)
    x = visual.patches(span).flatten(0, 1)
    chosen = [n - 3 for n in cut.keep[0].tolist() if 3 <= n < 3 + EDGE**2]
    groups = {i: [x[i]] for i in chosen}
    for j in sorted(set(range(EDGE**2)) - set(chosen)):
        cosines = torch.cosine_similarity(keys[j][None], keys[chosen])
        groups[chosen[int(cosines.argmax())]].append(x[j])
    expected = visual.project(torch.stack([torch.stack(groups[i]).mean(0) for i in chosen]))
    torch.testing.assert_close(cut.values[0, 3 : 3 + len(chosen)], expected, rtol=1e-4, atol=1e-4)


def test_merged_patches_are_redundant_only_together():
    """InternVL: 2 x 2 patches per token."""
    case = CASES["internvl"]
    model = case.build()
    visual = visual_of(model, case.inputs([[case.image(0)]]), [0, 2])
    method = CorrelationGuided(theta=0.8, repeats=0.3)
    method._low, method._deep = 0, 2
    span = visual.spans[0]
    keys = visual.keys(span, 0).permute(1, 2, 0, 3).reshape(16, -1)
    redundant = (repeats(keys, 0.8) > 4.8).view(2, 2, 2, 2).transpose(1, 2).reshape(4, 4)
    assert bool(redundant.any()) and not bool(redundant.all(1).all())
    crop = method._look(visual, span)
    assert crop.density == pytest.approx(1 - float(redundant.all(1).float().mean()))
    p = visual.cls_attention(span, 0).mean(0).view(2, 2, 2, 2).transpose(1, 2).reshape(4, 4).mean(1)
    torch.testing.assert_close(crop.local, p / p.sum())


def test_which_views_are_crops(vlm):
    case = CASES["llava_next"]
    visual = visual_of(case.build(), case.inputs([[case.image(0, size=(64, 64))]]), [0])
    whole, crops = crops_of(visual, 0)
    assert [s.crop for s in whole] == [0] and [s.crop for s in crops] == [1, 2, 3, 4]
    whole, crops = crops_of(visual_of(vlm, inputs([(3, 9)]), [0]), 0)
    assert whole == [] and len(crops) == 1


def test_layers_scale_with_depth_and_can_be_named(vlm):
    method = attached(vlm)
    assert set(method.encoder_layers(5)) == {0, 3}  # the features are those of the second to last of 5 layers
    assert set(attached(vlm, low=1, deep=-1).encoder_layers(5)) == {1, -1}
    run(vlm, inputs([(3, 9)]), low=1, deep=-1, keep=0.4)


@pytest.mark.parametrize("wrong", [{"theta": 1.5}, {"repeats": -0.1}, {"least": 0}, {"draw": "all"}, {"positions": "x"}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CorrelationGuided(**wrong)


def test_an_encoder_without_cls_is_refused():
    with pytest.raises(UnsupportedModelError, match="has none"):
        laconic.compress(CASES["llava_onevision"].build(), CorrelationGuided())
