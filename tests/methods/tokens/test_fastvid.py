"""FastVID against loops; numbers in the docstrings are the lines of what it must show."""

import math

import pytest
import torch
from helpers.slow_peaks import slow_peaks
from helpers.video_tools import inputs, random_video_model
from helpers.vision_zoo import CASES

import laconic
from laconic import BudgetError
from laconic.families.vision import VisionWatch
from laconic.methods.tokens.fastvid import FastVID, anchors, scenes


def cos(a, b):
    return float(torch.cosine_similarity(a.double(), b.double(), dim=0))


def slow_scenes(x, count, tau):
    """Lists of frames."""
    mean = [frame.mean(0) for frame in x]
    similar = [cos(mean[t], mean[t + 1]) for t in range(len(x) - 1)]
    ends = set(sorted(range(len(similar)), key=lambda t: (similar[t], t))[: count - 1])
    ends |= {t for t, value in enumerate(similar) if value < tau}
    found, scene = [], []
    for t in range(len(x)):
        scene.append(t)
        if t in ends or t == len(x) - 1:
            found.append(scene)
            scene = []
    return found


def slow(x, salience, ratio, count=8, tau=0.9, d=0.4, step=4, beta=0.6):
    """What stays: place (t, i) -> vector, in the published counts."""
    t, n, _ = x.shape
    per_frame = int(n * ratio)
    context = int(per_frame * d)
    salient = {
        (f, i) for f in range(t) for i in sorted(range(n), key=lambda i: (-float(salience[f, i]), i))[: per_frame - context]
    }
    out = {place: x[place] for place in salient}
    for scene in slow_scenes(x, count, tau):
        chosen = [f for f in scene if (scene[-1] - f) % step == 0]
        others = [(f, i) for f in scene for i in range(n) if (f, i) not in salient]
        for anchor in chosen:
            number = math.floor(context * len(scene) / len(chosen))
            free = [i for i in range(n) if (anchor, i) not in salient]
            centres = [(anchor, free[c]) for c in slow_peaks(x[anchor, free], number, 4)[0]] if number else []
            groups = {centre: [] for centre in centres}
            for place in others:
                if centres and place not in centres:
                    groups[max(centres, key=lambda c: (round(cos(x[place], x[c]), 6), -c[1]))].append(x[place])
            for centre, members in groups.items():
                w = max(beta, 1 / (len(members) + 1))
                out[centre] = w * x[centre] + (1 - w) * torch.stack(members).mean(0) if members else x[centre]
    return dict(sorted(out.items()))


def video(t=10, n=20, width=12, seed=0):
    """Three scenes."""
    torch.manual_seed(seed)
    scene = torch.randn(3, n, width) + 1.5 * torch.randn(3, 1, width)
    x = torch.stack([scene[min(3 * f // t, 2)] for f in range(t)]) + 0.4 * torch.randn(t, n, width)
    return x, torch.rand(t, n)


def ours(x, salience, limit=None, must=None, **options):
    must = torch.zeros(x.shape[:2], dtype=torch.bool) if must is None else must
    out, into = FastVID(**options).reduce(x, salience, limit, must)
    own = into == torch.arange(into.numel()).view(into.shape)
    return {(int(t), int(i)): out[t, i] for t, i in own.nonzero()}, into


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options", [{"ratio": 0.4}, {"ratio": 0.6, "scenes": 3, "tau": 0.5}, {"ratio": 0.3, "scenes": 2, "tau": -1.0, "step": 2}]
)
def test_equals_the_loops(seed, options):
    """1."""
    x, salience = video(seed=seed)
    got, _ = ours(x, salience, **options)
    names = {"scenes": "count"}
    expected = slow(x, salience, **{names.get(key, key): value for key, value in options.items()})
    assert list(got) == list(expected)
    for place, vector in expected.items():
        torch.testing.assert_close(got[place], vector, rtol=1e-4, atol=1e-5)
    assert len(got) <= 10 * int(20 * options["ratio"])


@pytest.mark.parametrize("count", [1, 2, 5, 8])
@pytest.mark.parametrize("tau", [-1.0, 0.6, 0.9])
def test_scenes(count, tau):
    """1."""
    x, _ = video()
    mean = torch.nn.functional.normalize(x.mean(1), dim=-1)
    lengths = scenes((mean[1:] * mean[:-1]).sum(-1), count, tau)
    assert lengths == list(map(len, slow_scenes(x, count, tau)))


def test_anchors_are_counted_from_the_end():
    assert [anchors(range(10, 10 + n), 4) for n in (1, 4, 5, 8, 9)] == [[10], [13], [10, 14], [13, 17], [10, 14, 18]]


def test_the_cards_counts():
    """1: 12 salient and 7 of the context of 19 per frame; 28, 17, 28 and 21 centres per anchor."""
    for length, each in ((4, 28), (5, 17), (8, 28), (9, 21)):
        salient, centres = FastVID(ratio=0.1)._numbers(196, [length], None, torch.zeros(length, 196, dtype=torch.bool))
        assert salient == [12] * length and [c for c in centres if c] == [each] * len(anchors(range(length), 4))


@pytest.mark.parametrize("limit", [1, 3, 9, 10, 11, 40, 77, 150, 199])
def test_a_budget_is_exact(limit):
    """Also below one token a frame, and near all of them."""
    x, salience = video()
    assert len(ours(x, salience, limit)[0]) == limit


@pytest.mark.parametrize("frames", [1, 2, 5, 7, 8])
def test_short_videos(frames):
    """2: up to c frames every one is a scene; one frame has salient tokens and centres of its own."""
    x, salience = video(frames)
    assert scenes(torch.rand(frames - 1), 8, -1.0) == [1] * frames
    got, _ = ours(x, salience, ratio=0.5)
    expected = slow(x, salience, 0.5)
    assert list(got) == list(expected) and len(got) == 10 * frames
    for place, vector in expected.items():
        torch.testing.assert_close(got[place], vector, rtol=1e-4, atol=1e-5)


def test_without_merging():
    """3: beta = 1 is pure selection; identical frames are cut at the first places."""
    x, salience = video()
    assert all(torch.equal(vector, x[place]) for place, vector in ours(x, salience, ratio=0.5, beta=1.0)[0].items())
    assert scenes(torch.ones(9), 4, 0.9) == [1, 1, 1, 7]


def test_weights_of_a_merge_sum_to_one():
    """4: equal tokens stay what they are."""
    x = torch.randn(12, generator=torch.Generator().manual_seed(0)).expand(6, 20, 12).contiguous()
    got, _ = ours(x, torch.rand(6, 20), ratio=0.5)
    for vector in got.values():
        torch.testing.assert_close(vector, x[0, 0], rtol=1e-5, atol=1e-6)


def test_where_tokens_went():
    """For the trace: to the most similar centre of the scene that they are in."""
    x, salience = video()
    _, into = ours(x, salience, ratio=0.4, scenes=1, tau=-1.0, step=3)
    kept = [tuple(map(int, place)) for place in (into == torch.arange(200).view(10, 20)).nonzero()]
    centres = [place for place in kept if place[0] in anchors(range(10), 3)]
    for t in range(10):
        for i in range(20):
            at = int(into[t, i])
            if (t, i) not in kept:
                assert (at // 20, at % 20) in centres
    _, into = ours(x, salience, 1)
    assert int((into < 0).sum()) > 0  # scenes without a centre


def test_protected_tokens_are_salient():
    """5."""
    x, salience = video()
    must = torch.zeros(10, 20, dtype=torch.bool)
    must[2, :9] = True
    for limit in (9, 30, 100):
        got, _ = ours(x, salience, limit, must)
        assert len(got) == limit and all(torch.equal(got[2, i], x[2, i]) for i in range(9))
    with pytest.raises(BudgetError, match="9 visual tokens are protected"):
        ours(x, salience, 8, must)


def mean_query(heads, start, stop, blocks, scale):
    """Attention of the mean query of patches start .. stop to blocks of them, head by head."""
    q, k = heads.queries[:, start:stop].double(), heads.keys[:, start:stop].double()
    rows = []
    for head in range(len(q)):
        logits = torch.stack([q[head].mean(0) @ k[head, block].mean(0) * scale for block in blocks])
        rows.append(logits.softmax(0))
    return torch.stack(rows).mean(0)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava"])
def test_saliency_is_the_attention_of_the_mean_query(name):
    """Keys averaged over the patches that one token shows."""
    case = CASES[name]
    model, image = case.build(), case.image(1, video=2) if name != "llava" else case.image(1)
    found = []
    with VisionWatch(model, [-1]) as watch, torch.no_grad():
        handle = model.base_model.language_model.layers[0].register_forward_pre_hook(lambda m, a: found.append(watch.visual))
        model(**case.inputs([[image]]))
        handle.remove()
    (visual,) = found
    for span in visual.spans:
        heads = visual._heads(span, -1)
        patches = span.patches.flatten()
        shift = 1 if heads.cls else 0  # patch 0 is entry 1 behind the CLS token of the only image
        first = int(patches.min())
        rows, cols = span.grid
        size = span.patches.shape[0] // rows
        blocks = [
            (span.patches[r * size : (r + 1) * size, c * size : (c + 1) * size].flatten() - first)
            for r in range(rows)
            for c in range(cols)
        ]
        expected = mean_query(heads, first + shift, first + shift + len(patches), blocks, heads.scale)
        torch.testing.assert_close(visual.mean_query_attention(span), expected.float(), rtol=1e-4, atol=1e-6)


def test_a_session_runs_on_what_the_loops_leave():
    model, given = random_video_model(), inputs([(3, 9)])
    features = model.model.get_video_features(given["pixel_values_videos"]).pooler_output[0]
    seen = []
    stack = model.model.language_model
    with laconic.compress(model, FastVID(ratio=0.5)) as session, torch.no_grad():
        handle = stack.layers[0].register_forward_pre_hook(lambda m, args, kw: seen.append((args[0], kw)), with_kwargs=True)
        model(**given)
        handle.remove()
    event = session.trace.events[0]
    salience = event.scores[0, 3:147].view(9, 16)
    expected = slow(features[:144].view(9, 16, -1), salience, 0.5)
    stream = event.stream[0].tolist()
    assert [at - 3 for at in stream if 3 <= at < 147] == [16 * t + i for t, i in expected] and stream[-10:] == list(
        range(147, 157)
    )
    torch.testing.assert_close(seen[0][0][0, 3:-10], torch.stack(list(expected.values())), rtol=1e-4, atol=1e-4)
    assert seen[0][1]["position_ids"][0].tolist() == stream


@pytest.mark.parametrize(
    "wrong", [{"ratio": 0.0}, {"scenes": 0}, {"step": 0}, {"beta": 2.0}, {"context": -1.0}, {"frames": "x"}]
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FastVID(**wrong)
