"""The page of images: what it says is what it was given, and nothing comes from outside."""

import base64
import io
import json
import re

import numpy as np
import pytest
from helpers.html_reader import Reader
from helpers.image_gallery import film, gallery
from PIL import Image

from laconic.report.image_page import About, image_page


class Whole(Reader):
    """Inputs have no end either."""

    def handle_starttag(self, tag, attrs):
        if tag != "input":
            super().handle_starttag(tag, attrs)


def data(html: str) -> dict:
    return json.loads(re.search(r"const DATA = (\{.*\});\n", html)[1])


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_the_data_of_the_page_is_the_gallery():
    shown = gallery()
    found = data(image_page("t", About([], start=1), shown))
    assert found["tokens"] == 9 and found["numbers"] == list(range(5, 14)) and found["start"] == 1
    assert found["layers"] == [0, 1, 4] and found["lens"] is None
    for view, given in zip(found["views"], shown.views, strict=True):
        assert view["cells"] == given.cells.tolist()
        image = Image.open(io.BytesIO(base64.b64decode(view["image"].removeprefix("data:image/png;base64,"))))
        assert (np.asarray(image) == given.pixels).all()
    for level, given in zip(found["levels"], shown.levels, strict=True):
        assert level["label"] == given.label
        for row, at in enumerate(level["at"]):
            state = level["states"][at]
            assert (unpacked(state["share"], "u1") == np.round(given.share[row] * 255)).all()
            assert (unpacked(state["into"], "<i4") == given.into[row]).all()
    assert len(found["levels"][0]["states"]) == 2, "layers that hold the same are written once"
    cut = found["levels"][0]["cuts"][0]
    assert (unpacked(cut["scores"], "<f4") == shown.levels[0].cuts[0].scores).all() and cut["merged"] == 2


@pytest.mark.parametrize("lens", [False, True])
def test_the_page_is_whole_escaped_and_loads_nothing(lens):
    about = About([("question", "<script>alert(1)</script>")], ["<u>loud</u>"])
    html = image_page("a < b", about, gallery(lens=lens))
    read = Whole(html)
    assert not read.open and read.text["h1"] == "a < b"
    assert "<script>alert" not in html and html.count("<script>") == html.count("</script>") == 1
    assert "<i>image" not in html.split("<script>")[0] and "<b>answer" not in html and "<u>loud" not in html
    for outside in ("http:", "https:", "src=", "@import", "url("):
        assert outside not in html
    assert "prefers-color-scheme: dark" in html


def test_answers_are_held_against_the_uncompressed_one():
    table = image_page("t", About([]), gallery()).split('id="levels"')[1].split("</table>")[0]
    rows = re.findall(r"<tr data-level=(\d+)>(.*?)</tr>", table)
    assert [number for number, _ in rows] == ["0", "1", "2"]
    assert "differs" in rows[0][1] and "same answer" in rows[1][1] and rows[2][1].endswith('<td class="dim"></td>')


def test_modes_that_have_nothing_to_show_cannot_be_chosen():
    with_scores, without = (image_page("t", About([]), gallery(scores=s)) for s in (True, False))
    assert '<option value="rank">' in with_scores and '<option value="rank" disabled>' in without
    assert 'value="words"' not in with_scores
    assert '<option value="words">' in image_page("t", About([]), gallery(lens=True))


def test_what_a_level_says_of_its_tokens():
    level = gallery().levels[0]
    assert level.kept[1].tolist() == [True, False, False, True, True, False, False, False, True]
    assert level.merged[1].tolist() == [False, True, False, False, False, True, False, False, False]
    assert level.ranked(0) is None and level.ranked(1) is level.cuts[0] and level.ranked(4) is level.cuts[0]


def test_a_film_has_a_bar_for_each_frame_as_wide_as_it_lasts():
    html = image_page("t", About([]), film())
    bars = re.findall(r'<button type="button" data-view=(\d) style="flex:([\d.]+) 1 0"', html)
    assert bars == [("0", "0.500"), ("1", "1.500")] and "<span>0.0 s</span><span>2.0 s</span>" in html
    assert 'class="alone strip"' in html and "0.50 s" in html
    assert '<div id="time">' not in image_page("t", About([]), gallery())
