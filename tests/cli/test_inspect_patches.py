"""Views and fates of visual tokens: images come back out of what encoders were fed, traces are followed token by token."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.vision_tools import inputs, random_vlm
from helpers.vision_zoo import CASES, COLOURS

from laconic import SnapKV, compress
from laconic.cli.inspect_patches import Eyes, colours, fates, level, patches
from laconic.errors import SessionError
from laconic.stream.assemble import assemble
from laconic.stream.contract import TokenMethod

ROWS = {
    "llava": [{}, {}],
    "llava-full": [{}],
    "llava_next": [{"size": (40, 64)}, {"size": (64, 30)}],
    "llava_onevision": [{"size": (64, 64)}],
    "internvl": [{"tiles": 4}],
    "qwen2_vl": [{"grid": (6, 8)}, {"grid": (4, 4)}],
    "qwen2_5_vl": [{"grid": (6, 8)}],
    "qwen3_vl": [{"grid": (6, 8)}],
}


@pytest.fixture(scope="module")
def vlm():
    return random_vlm()


@pytest.mark.parametrize("name", ROWS)
def test_every_token_lies_on_the_patch_it_shows(name):
    case = CASES[name]
    given = [case.image(seed, **shape) for seed, shape in enumerate(ROWS[name])]
    model = case.build()
    with Eyes(model) as eyes, torch.no_grad():
        model(**case.inputs([given]))
    views, numbers = eyes.views()
    scale = [COLOURS.min(), COLOURS.max()]
    start, tokens = 2, {}
    for image in given:  # the prompt: two words, then every image (behind its opening) followed by a word
        start += len(case.opening)
        for place, cell in enumerate(case.cells(image)):
            if cell is not None:
                tokens[start + place] = (image, *cell)
        start += len(case.cells(image)) + 1
    assert numbers.tolist() == sorted(tokens)
    seen = []
    for view in views:
        rows, cols = view.cells.shape
        height, width = view.pixels.shape[0] // rows, view.pixels.shape[1] // cols
        for r in range(rows):
            for c in range(cols):
                if view.cells[r, c] < 0:
                    continue
                image, crop, frame, row, col = tokens[int(numbers[view.cells[r, c]])]
                seen.append(int(numbers[view.cells[r, c]]))
                block = case.view(image, crop, frame)[row * case.block, col * case.block]
                expected = (COLOURS[int(block)] - scale[0]) / (scale[1] - scale[0]) * 255
                shown = view.pixels[r * height + 1, c * width + 1].astype(float)
                span = 255 / float(scale[1] - scale[0])  # pixels are stretched by the extremes of what was fed
                np.testing.assert_allclose(_stretched(shown, eyes), expected.numpy(), atol=2 * span)
    assert sorted(seen) == numbers.tolist()


def _stretched(shown: np.ndarray, eyes: Eyes) -> np.ndarray:
    """From the range of what was fed to that of all colours."""
    low, high = float(eyes._pixels[-1].min()), float(eyes._pixels[-1].max())
    low_all, high_all = float(COLOURS.min()), float(COLOURS.max())
    return (shown / 255 * (high - low) + low - low_all) / (high_all - low_all) * 255


def test_crops_lie_where_they_lie_in_the_image():
    case = CASES["llava_next"]
    model = case.build()
    with Eyes(model) as eyes, torch.no_grad():
        model(**case.inputs([[case.image(0, size=(64, 64))]]))
    views, _ = eyes.views()
    assert [(v.name, v.spot) for v in views] == [
        ("whole image", None), ("crop 1", (0, 0)), ("crop 2", (0, 1)), ("crop 3", (1, 0)), ("crop 4", (1, 1)),
    ]  # fmt: skip


def test_without_an_image_there_is_nothing_to_see(vlm):
    with Eyes(vlm) as eyes, torch.no_grad():
        vlm(input_ids=torch.tensor([[1, 9, 8]]))
    with pytest.raises(SessionError, match="not read any image"):
        eyes.views()


def test_patches_of_images_and_of_packed_rows_agree():
    x = torch.randn(2, 3, 12, 20)
    cut = patches(x, 4)
    assert cut.shape == (2 * 3 * 5, 3, 4, 4)
    for v in range(2):
        for r in range(3):
            for c in range(5):
                torch.testing.assert_close(cut[v * 15 + r * 5 + c], x[v, :, r * 4 : r * 4 + 4, c * 4 : c * 4 + 4])
    packed = cut[:, :, None].repeat(1, 1, 2, 1, 1)
    packed[:, :, 1] = 7  # the second frame of a temporal patch is not shown
    assert torch.equal(patches(packed.reshape(30, -1), 4), cut)


def test_normalisation_is_undone():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
    fed = (torch.from_numpy(image).movedim(-1, 1) / 255 - mean) / std
    processor = SimpleNamespace(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25], do_normalize=True)
    assert (colours(fed, processor) == image).all()
    assert colours(fed, None).min() == 0 and colours(fed, None).max() == 255


@dataclass(kw_only=True)
class Scripted(TokenMethod):
    """`plan[layer]`: (tokens that stay, {token: token that takes it in}), tokens by their place in the prompt."""

    plan: dict = field(default_factory=dict)

    name = "scripted"

    def cuts(self, depth):
        return sorted(self.plan)

    def cut(self, stream):
        stay, into = self.plan[stream.layer]
        at, place = stream.images(0), stream.place[0]
        kept = at[torch.isin(place[at], torch.tensor(stay))]
        merged = torch.arange(stream.hidden.shape[1])[None].clone()
        row = {int(token): i for i, token in enumerate(place)}
        for i in at.tolist():
            token = int(place[i])
            merged[0, i] = i if token in stay else row[into[token]] if token in into else -1
        scores = place[at].float() * -1
        return assemble(stream, [kept], merged=merged, scores=[scores])


def test_a_trace_is_followed_token_by_token(vlm):
    """Three cuts with merges of merged tokens, against a walk through the plan."""
    rng = np.random.default_rng(1)
    alive, plan, walked = list(range(3, 147)), {}, {}
    holder = {t: t for t in alive}
    for layer, count in ((0, 60), (3, 25), (6, 9)):
        stay = sorted(rng.choice(alive, count, replace=False).tolist())
        gone = [t for t in alive if t not in stay]
        into = {t: int(rng.choice(stay)) for t in gone if rng.random() < 0.6}
        plan[layer] = (stay, into)
        step = {t: t if t in stay else into.get(t, -1) for t in alive}
        holder = {t: -1 if h < 0 else step[h] for t, h in holder.items()}
        walked[layer] = dict(holder)
        alive = stay
    with Eyes(vlm) as eyes, compress(vlm, Scripted(plan=plan, keep=0.5)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)]))
        _, numbers = eyes.views()
        found = level(session, numbers, "0.5")
    assert numbers.tolist() == list(range(3, 147)) and found.layers == list(range(8))
    for row, layer in enumerate(found.layers):
        expected = walked[max(first for first in plan if first <= layer)]
        held = [int(numbers[i]) if i >= 0 else -1 for i in found.into[row]]
        assert held == [expected[t] for t in numbers.tolist()]
        assert found.kept[row].tolist() == [expected[t] == t for t in numbers.tolist()]
    assert [(c.layer, c.before, c.after) for c in found.cuts] == [(0, 144, 60), (3, 60, 25), (6, 25, 9)]
    assert [c.merged for c in found.cuts] == [len(plan[layer][1]) for layer in plan]
    assert found.cuts[0].scores.tolist() == [-float(t) for t in numbers]
    later = found.cuts[1].scores
    assert np.flatnonzero(~np.isnan(later)).tolist() == [t - 3 for t in plan[0][0]]
    assert found.asked == 0.5 and found.achieved == session.stats.achieved


def test_shares_are_those_of_the_heads(vlm):
    with Eyes(vlm) as eyes, compress(vlm, SnapKV(keep=0.3, window=4)) as session, torch.no_grad():
        vlm(**inputs([(3, 9)]))
        _, numbers = eyes.views()
        found = level(session, numbers, "0.3")
        for row, layer in enumerate(found.layers):
            heads = [set(session.kept(layer, head).tolist()) for head in range(2)]
            assert found.share[row].tolist() == [sum(t in h for h in heads) / 2 for t in numbers.tolist()]
    assert 0 < found.share.mean() < 1 and (found.into == np.arange(144)).all() and not found.cuts


def test_a_second_cut_is_followed_after_the_first():
    stream = torch.tensor([[0, 2, 5, 7]])
    events = [
        SimpleNamespace(layer=-1, method="cutter", stream=stream, merged=None, scores=None),
        SimpleNamespace(layer=0, method="snapkv", stream=torch.tensor([[2, 7]]), merged=None, scores=None),
        SimpleNamespace(layer=1, method="snapkv", stream=None, merged=None, scores=None),
    ]
    session = SimpleNamespace(methods=[SnapKV()], cache=SimpleNamespace(seen=8), trace=SimpleNamespace(events=events))
    into, cuts = fates(session, np.arange(8), [0, 1, 2])
    assert into.tolist() == [[0, -1, 2, -1, -1, 5, -1, 7]] + 2 * [[-1, -1, 2, -1, -1, -1, -1, 7]]
    assert [(c.before, c.after) for c in cuts] == [(8, 4), (4, 2)]
