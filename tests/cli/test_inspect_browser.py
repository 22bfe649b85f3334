"""The page in a real browser: patches have the colours that they should, and slider, layers and pointing change them."""

import json

import numpy as np
import pytest
from helpers.browser_tools import needs_browser, probe, screenshot
from helpers.image_gallery import film
from helpers.vlm_files import LARGE, save_image, save_llava, save_llava_next
from PIL import Image

import laconic.methods  # noqa: F401  fills the catalogue
from laconic.report.image_page import About, Gallery, Lens, Level, View, image_page

pytestmark = needs_browser

SAMPLE = """
const marks = () => ({...document.documentElement.dataset});
const sample = () => [...document.querySelectorAll('canvas')].map((canvas, v) => {
  const [rows, cols] = GRIDS[v], pixels = canvas.getContext('2d');
  return Array.from({length: rows * cols}, (_, i) => [...pixels.getImageData(
    ((i % cols) + .25) * canvas.width / cols, (Math.floor(i / cols) + .35) * canvas.height / rows, 1, 1).data].slice(0, 3));
});
const note = () => out.push({mark: marks(), pixels: sample(), lines: document.querySelectorAll('#over line').length,
  count: document.getElementById('count').textContent, hash: location.hash});
while (!document.documentElement.dataset.drawn) await pause();
"""


def looked_at(page, grids, script):
    return probe(page, SAMPLE.replace("GRIDS", json.dumps(grids)) + script)


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """ToMe on LLaVA: the page, its JSON, the colours of the patches."""
    from typer.testing import CliRunner

    from laconic.cli import app

    folder = tmp_path_factory.mktemp("merged")
    image = save_image(folder / "image.png")
    page = folder / "page.html"
    args = ["inspect", "--model", save_llava(folder / "m"), "--image", image, "--method", "tome", "--keep", "0.25,0.5"]
    done = CliRunner().invoke(app, [*args, "--max-new-tokens", "1", "--out", str(page), "--json"])
    assert done.exit_code == 0, done.output
    return page, json.loads(done.stdout), np.asarray(Image.open(image))[::8, ::8].reshape(-1, 3).astype(float)


def test_patches_are_drawn_as_the_session_left_them(merged):
    page, told, colours = merged
    go = "for (const hash of ['#keep=0.25&layer=3', '#keep=0.5&layer=0', '#keep=1&layer=7']) "
    go += "{ location.hash = hash; await pause(); await pause(); note(); }"
    for step, keep, layer in zip(looked_at(page, [[12, 12]], go), ("0.25", "0.5", "1"), "307", strict=True):
        level = next(x for x in told["levels"] if x["label"] == keep)
        kept = np.isin(told["visual_tokens"], level["kept"][layer])
        assert (step["mark"]["level"], step["mark"]["layer"]) == (keep, layer)
        assert int(step["mark"]["kept"]) == kept.sum() and step["lines"] == (~kept).sum() == int(step["mark"]["merged"])
        assert f"{kept.sum()} of 144 visual tokens kept" in step["count"] and step["hash"] == f"#keep={keep}&layer={layer}"
        shown = np.array(step["pixels"][0], float)
        holders = set(level["merged"].get(layer, {}).values())
        plain = kept & ~np.isin(told["visual_tokens"], list(holders))
        assert plain.any()
        off = np.abs(shown - colours).max(-1)
        assert off[plain].max() < 12, "kept patches are clear"
        assert (np.abs(shown - colours).sum(-1)[~kept] > 40).all(), "merged ones are not"


def test_the_slider_changes_the_drawing(merged):
    page, _, _ = merged
    script = """note();
    const slide = async (id, value) => { const range = document.getElementById(id); range.value = value;
      range.dispatchEvent(new Event('input', {bubbles: true})); await pause(); note(); };
    await slide('keep', 0); await slide('keep', 2); await slide('layer', 0);
    document.querySelector('#levels tr[data-level="1"]').click(); await pause(); note();"""
    first, tight, full, layer, clicked = looked_at(page, [[12, 12]], script)
    assert [x["mark"]["level"] for x in (tight, full, layer, clicked)] == ["0.25", "1", "1", "0.5"]
    assert (tight["mark"]["kept"], full["mark"]["kept"]) == ("36", "144") and layer["mark"]["layer"] == "0"
    assert tight["pixels"] != full["pixels"] and clicked["pixels"] != full["pixels"] and first["mark"]["drawn"]
    assert tight["hash"] == "#keep=0.25&layer=7" and full["hash"] == "#keep=1&layer=7"


def test_pointing_at_a_patch_says_where_it_went(merged):
    page, told, _ = merged
    gone, into = next(iter(told["levels"][0]["merged"]["7"].items()))
    place = {t: (r, c) for r, line in enumerate(told["views"][0]["cells"]) for c, t in enumerate(line)}
    (r, c), (to_r, to_c) = place[int(gone)], place[into]
    script = f"""location.hash = '#keep=0.25&layer=7'; await pause(); await pause();
    const canvas = document.querySelector('canvas'), box = canvas.getBoundingClientRect();
    canvas.dispatchEvent(new MouseEvent('mousemove', {{clientX: box.left + {c + 0.5} * box.width / 12,
      clientY: box.top + {r + 0.5} * box.height / 12, bubbles: true}}));
    const tip = document.getElementById('tip'); out.push(tip.hidden, tip.textContent);
    canvas.dispatchEvent(new MouseEvent('mouseleave')); out.push(tip.hidden);"""
    hidden, text, after = looked_at(page, [[12, 12]], script)
    assert (hidden, after) == (False, True)
    assert f"row {r}, column {c}" in text and f"token {gone}" in text
    assert f"merged into whole image, row {to_r}, column {to_c}" in text


def test_crops_scores_and_words(tmp_path, laconic):
    page, image = tmp_path / "page.html", save_image(tmp_path / "large.png", LARGE)
    model = save_llava_next(tmp_path / "m")
    told = laconic.json(
        "inspect", "--model", model, "--image", image, "--method", "fastv", "--keep", "0.5,0.35", "--max-new-tokens", 1,
        "--lens", "embedlens", "--out", page,
    )  # fmt: skip
    script = """for (const show of ['patches', 'rank', 'view', 'value', 'budget', 'words', 'classes']) {
      location.hash = '#keep=0.35&layer=7&show=' + show; await pause(); await pause(); note(); }
    location.hash = '#keep=0.35&layer=0&show=rank'; await pause(); await pause();
    out.push(document.getElementById('legend').textContent);"""
    *steps, legend = looked_at(page, [[12, 12]] * 5, script)
    # classes are not known for this model, so they cannot be shown
    assert [s["mark"]["show"] for s in steps] == ["patches", "rank", "view", "value", "budget", "words", "patches"]
    assert "Nothing had been ranked before layer 0" in legend
    level = told["levels"][0]
    tokens = np.array([v["cells"] for v in told["views"]]).reshape(5, -1)
    kept, place = np.isin(tokens, level["kept"]["7"]), np.searchsorted(told["visual_tokens"], tokens)
    large = np.asarray(Image.open(image))[::8, ::8].astype(float).reshape(2, 12, 2, 12, 3)
    crops = large.swapaxes(1, 2).reshape(4, -1, 3)
    patches = np.array(steps[0]["pixels"], float)
    assert np.abs(patches[1:] - crops).max(-1)[kept[1:]].max() < 12, "crops lie where they lie in the image"
    assert np.abs(patches[1:] - crops).max(-1)[~kept[1:]].min() > 50
    # the ramp goes from dark violet to yellow: the best scores are the brightest
    bright = np.array(steps[1]["pixels"], float)[..., :2].sum(-1)
    scores = np.array(level["cuts"][0]["scores"])[place]
    order = bright.flatten()[np.argsort(scores.flatten())]
    assert order[-72:].mean() > order[-360:-288].mean() > order[:72].mean()
    assert len({json.dumps(s["pixels"]) for s in steps[:6]}) >= 5


def test_classes_of_a_lens_and_odd_text(tmp_path):
    n = 4
    view = View(0, "<v>", np.full((40, 40, 3), 60, np.uint8), np.arange(n).reshape(2, 2))
    level = Level("<b>1</b>", 1.0, 1.0, [3], np.ones((1, n), np.float32), np.arange(n)[None])
    lens = Lens("embedlens", [["<i>word</i>"]] * n, [[0.5]] * n, ["alive", "dead", "dead", "alive"])
    page = tmp_path / "page.html"
    page.write_text(image_page("t", About([]), Gallery([view], np.arange(n), [level], lens)), encoding="utf-8")
    script = """location.hash = '#show=classes'; await pause(); await pause(); note();
    out.push(document.getElementById('legend').textContent, document.querySelectorAll('#main i i, #count b b').length);"""
    step, legend, injected = looked_at(page, [[2, 2]], script)
    a, b, c, d = map(tuple, step["pixels"][0])
    assert a == d != b == c and "alive (2)" in legend and "dead (2)" in legend
    assert injected == 0 and "<b>1</b>" in step["count"]


def test_the_window_in_light_and_dark(merged):
    page, _, _ = merged
    light, dark = screenshot(page, "#keep=1&layer=7"), screenshot(page, "#keep=0.25&layer=7", dark=True)
    assert light[2, 2].min() > 240 and dark[2, 2].max() < 50
    edge = (np.abs(dark.astype(int) - [255, 209, 102]).max(-1) < 20).mean()  # the outline of what is kept
    assert 0.001 < edge < 0.1 and not (np.abs(light.astype(int) - [255, 209, 102]).max(-1) < 20).any()


def test_the_time_line_is_as_high_as_what_is_kept_of_each_frame(tmp_path):
    page = tmp_path / "film.html"
    page.write_text(image_page("t", About([]), film()), encoding="utf-8")
    bars = "out.push([...document.querySelectorAll('.film button')].map(b => "
    bars += "[Number(b.dataset.kept), b.firstChild.style.height, b.title]));"
    go = "location.hash = '#keep=0.25&layer=1'; await pause(); await pause();"
    (found,) = probe(page, "while (!document.documentElement.dataset.drawn) await pause();" + go + bars)
    assert [(kept, height) for kept, height, _ in found] == [(3, "50%"), (1, f"{100 / 6:.4f}%")]
    assert found[0][2] == "0.00 to 0.50 s: 3 of 6 kept, 2 merged" and "1 of 3 kept" in found[1][2]
