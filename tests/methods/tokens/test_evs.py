"""EVS against a loop; numbers in the docstrings are the lines of what it must show (4 and 5 also in test_videos.py)."""

import pytest
import torch
from helpers.video_tools import inputs, kept_cells, random_video_model
from helpers.vision_zoo import CASES, ZooImage, numbers

import laconic
from laconic import BudgetError
from laconic.methods.tokens.evs import EVS, novelty


def slow(x, count):
    """The algorithm, cell by cell: places (t, i) that stay."""
    places = [(t, i) for t in range(len(x)) for i in range(x.shape[1])]

    def dissimilarity(t, i):
        return 255.0 if t == 0 else 1 - float(torch.cosine_similarity(x[t, i], x[t - 1, i], dim=0))

    ranked = sorted(places, key=lambda place: (-round(dissimilarity(*place), 5), place))
    return sorted(ranked[:count])


def run(model, given, **options):
    with laconic.compress(model, EVS(**options)) as session, torch.no_grad():
        session.logits = model(**given).logits[:, -1]
    return session


@pytest.fixture(scope="module")
def model():
    return random_video_model()


@pytest.mark.parametrize(("rate", "count"), [(0.3, 100), (0.5, 72), (0.75, 36), (0.9, 16)])
def test_equals_the_loop(model, rate, count):
    """1: the mask, and max(n, int(T n (1 - q))) of 9 frames of 16 tokens."""
    given = inputs([(3, 9)])
    session = run(model, given, rate=rate)
    features = model.model.get_video_features(given["pixel_values_videos"]).pooler_output[0, :144]
    expected = [3 + 16 * t + i for t, i in slow(features.view(9, 16, -1), count)]
    stream = session.trace.events[0].stream[0].tolist()
    assert len(expected) == count and [at for at in stream if 3 <= at < 147] == expected
    assert stream == [0, 1, 2, *expected, *range(147, 157)]  # the line end of the video stays, too
    scores = session.trace.events[0].scores[0]
    assert scores[3:19].tolist() == [255.0] * 16 and scores[:3].isnan().all()


@pytest.mark.parametrize(("frames", "cells", "counts"), [(8, 16, {0.3: 89, 0.5: 64, 0.75: 32, 0.9: 16})])
def test_published_counts(frames, cells, counts):
    """1: the card's example."""
    for rate, count in counts.items():
        clip = type("Clip", (), {"rows": torch.zeros(frames, cells)})
        assert EVS(rate=rate)._counts(None, 0, [clip]) == [count]


def test_a_frame_that_is_repeated_leaves_its_first_showing():
    """2: and a cell that changes is kept first."""
    case = CASES["qwen2_5_vl"]
    model, frame = case.build(blind=True), numbers(1, 6, 8)
    still = ZooImage([frame] * 4, video=True)
    given = case.inputs([[still]])
    (kept,) = kept_cells(case, [still], given, run(model, given, keep=0.25))
    assert kept == [(0, 0, r, c) for r in range(3) for c in range(4)]
    changed = frame.copy()
    changed[2:4, 4:6] = numbers(9, 2, 2)
    moving = ZooImage([frame, frame, changed, changed], video=True)
    given = case.inputs([[moving]])
    (kept,) = kept_cells(case, [moving], given, run(model, given, tokens=13))
    assert kept == [*((0, 0, r, c) for r in range(3) for c in range(4)), (0, 2, 1, 2)]


def test_each_frame_is_compared_with_the_one_before_it():
    """Not with the first, nor with the next one."""
    x = torch.eye(4)[torch.tensor([0, 1, 1, 0])][:, None]
    assert novelty(x)[:, 0].tolist() == [255, 1, 0, 1]


@pytest.mark.parametrize("options", [{"keep": 1.0}, {"rate": 0.0}, {"tokens": 10**6}])
def test_nothing_to_remove(model, options):
    """3."""
    given = inputs([(3, 9), (8, 2)])
    plain = model(**given).logits[:, -1]
    torch.testing.assert_close(run(model, given, **options).logits, plain, atol=1e-5, rtol=1e-5)


def test_one_frame_is_the_model(vlm):
    """3: a still image, and a video of one frame."""
    case = CASES["qwen2_5_vl"]
    for image in (case.image(1), case.image(1, video=1)):
        model, given = case.build(), case.inputs([[image]])
        session = run(model, given, rate=0.9)
        torch.testing.assert_close(session.logits, model(**given).logits[:, -1], atol=1e-5, rtol=1e-5)
        assert session.stats.achieved == 1


def test_a_budget_below_the_first_frames_is_refused(model):
    """The least share is named, and it works."""
    with pytest.raises(BudgetError, match=r"16 of 144 visual tokens, so keep=0.1 cannot .* keep=0.1112 or more"):
        run(model, inputs([(3, 9)]), keep=0.1)
    assert run(model, inputs([(3, 9)]), keep=0.1112).stats.visual[0] == 16
    with pytest.raises(BudgetError, match=r"keep=1.0 or more.*frames='images'"):
        run(CASES["internvl"].build(), CASES["internvl"].inputs([[CASES["internvl"].image(i) for i in range(4)]]), keep=0.5)


def test_frames_given_as_images():
    case = CASES["internvl"]
    frames = [case.image(i) for i in range(4)]
    given = case.inputs([frames])
    kept = kept_cells(case, frames, given, run(case.build(), given, keep=0.5, frames="images"))
    assert len(kept[0]) == 4 and sum(map(len, kept)) == 8


def test_protected_tokens_stay(model):
    given = inputs([(3, 9)])
    plain = run(model, given, keep=0.25).trace.events[0].stream[0].tolist()
    gone = next(at for at in range(20, 147) if at not in plain)
    assert gone in run(model, given, keep=0.25, protect=(gone, gone + 1)).trace.events[0].stream[0].tolist()
    with pytest.raises(BudgetError, match="17 visual tokens are protected"):  # with the first frame, which stays whole
        run(model, given, rate=0.9, protect=(gone, gone + 1))


@pytest.mark.parametrize("wrong", [{"rate": 1.0}, {"rate": -0.1}, {"frames": "film"}, {"positions": "middle"}])
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EVS(**wrong)
