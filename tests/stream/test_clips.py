"""Clips: frames of videos as tables of rows, and what each clip may keep."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.vision_zoo import CASES

import laconic
from laconic import BudgetError
from laconic.stream.clips import clip_counts, clips, ranked
from laconic.stream.contract import TokenMethod

VIDEOS = ["llava_onevision", "qwen2_5_vl", "qwen3_vl"]


@dataclass(kw_only=True)
class Look(TokenMethod):
    """Notes what it is shown, and keeps everything."""

    frames: str = "video"
    least: Any = None

    def cut(self, stream):
        rows = range(len(stream.hidden))
        self.clips = [clips(stream, b, self.frames) for b in rows]
        self.counts = [clip_counts(self, stream, b, self.clips[b], self.least) for b in rows]
        self.shown = [
            [
                torch.equal(stream.hidden[b, c.rows[t]], stream.visual.features(s))
                for c in self.clips[b]
                for t, s in enumerate(c.spans)
            ]
            for b in rows
        ]
        self.ranked = [ranked(stream, b, self.clips[b], [c.rows.float() for c in self.clips[b]]).tolist() for b in rows]
        self.images = [stream.images(b).tolist() for b in rows]


def look(name, rows, **options):
    case, method = CASES[name], Look(**options)
    model = case.build()
    with laconic.compress(model, method), torch.no_grad():
        model(**case.inputs(rows))
    return method


@pytest.mark.parametrize("name", VIDEOS)
def test_a_clip_has_the_frames_of_one_video_in_order(name):
    """Also in a padded batch, with a still image before, and two videos in a row."""
    case = CASES[name]
    few = 4 if name == "llava_onevision" else 2  # that processor stacks videos of one length
    long, short = case.image(1, video=4), case.image(2, video=few)
    method = look(name, [[case.image(3), long], [short, long]])
    shapes = [[tuple(c.rows.shape) for c in found] for found in method.clips]
    n = len(case.cells(long)) // 4
    assert shapes[0][-1] == (4, n) and shapes[1] == [(few, n), (4, n)]
    assert all(len(shape) == 2 and shape[0] == 1 for shape in shapes[0][:-1])
    assert [span.frame for span in method.clips[1][1].spans] == [0, 1, 2, 3]
    assert all(all(row) for row in method.shown) and method.ranked == method.images


def test_frames_that_are_given_as_images_are_one_clip():
    case = CASES["internvl"]
    frames = [case.image(seed) for seed in range(5)]
    assert [tuple(c.rows.shape) for c in look("internvl", [frames]).clips[0]] == [(1, 4)] * 5
    (clip,) = look("internvl", [frames], frames="images").clips[0]
    assert clip.rows.shape == (5, 4) and [span.image for span in clip.spans] == [0, 1, 2, 3, 4]
    assert bool((clip.rows[1:] > clip.rows[:-1]).all())


@pytest.mark.parametrize("shapes", [[{}, {"grid": (4, 4)}], [{"size": (40, 64)}]], ids=["sizes", "crops"])
def test_images_that_cannot_be_frames(shapes):
    name = "qwen2_5_vl" if len(shapes) > 1 else "llava_next"
    with pytest.raises(ValueError, match="differ in size or are split into crops"):
        look(name, [[CASES[name].image(i, **shape) for i, shape in enumerate(shapes)]], frames="images")


def test_counts_are_the_same_share_and_exact_in_sum():
    case = CASES["qwen2_5_vl"]  # 12 tokens a frame
    rows = [[case.image(1, video=4), case.image(2, video=2)]]
    assert look("qwen2_5_vl", rows, keep=0.25).counts == [[12, 6]]
    assert look("qwen2_5_vl", rows, tokens=20).counts == [[13, 7]]
    assert look("qwen2_5_vl", rows, tokens=20, least=[0, 12]).counts == [[8, 12]]
    with pytest.raises(BudgetError, match="leaves 20 visual tokens to images, crops or frames that need 24"):
        look("qwen2_5_vl", rows, tokens=20, least=[12, 12])


def test_what_is_protected():
    case = CASES["qwen2_5_vl"]
    method = look("qwen2_5_vl", [[case.image(1, video=2)]], protect=(4, 6))
    (clip,) = method.clips[0]
    assert clip.must.nonzero().tolist() == [[0, i] for i, at in enumerate(clip.rows[0].tolist()) if at in (4, 5)]
    assert int(clip.must.sum()) == 2
