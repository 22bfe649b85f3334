"""`laconic inspect --image`: what is written is what the sessions did."""

import numpy as np
import pytest
import torch
from helpers.vlm_files import LARGE, save_image, save_llava, save_llava_next
from PIL import Image

import laconic as api
from laconic.media import load_image
from laconic.methods.encoder.tome import ToMe
from laconic.methods.tokens.fastv import FastV
from laconic.prompts import media as media

KEYS = {
    "model", "images", "question", "answer_prefix", "visual_tokens", "views", "levels", "lens", "out", "png", "warnings",
}  # fmt: skip
SHORT = ("--max-new-tokens", 2, "-q", "How many circles are there?")


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def llava_next(tmp_path_factory):
    return save_llava_next(tmp_path_factory.mktemp("next"))


@pytest.fixture
def image(tmp_path):
    return save_image(tmp_path / "image.png")


@pytest.fixture
def large(tmp_path):
    return save_image(tmp_path / "large.png", LARGE)


def test_levels_are_what_sessions_kept(laconic, llava, image):
    found = laconic.json(
        "inspect", "--model", llava, "--image", image, "--method", FastV.name, "--keep", "0.5,0.35,1.0", *SHORT
    )
    assert set(found) == KEYS and found["out"] is None and found["png"] is None
    assert [level["label"] for level in found["levels"]] == ["0.35", "0.5", "1"]
    model, processor = api.load(llava)
    prompt = media.build(processor, [load_image(image)], "", "How many circles are there?")
    given = {"input_ids": torch.tensor([prompt.ids]), **prompt.inputs}
    for level, keep in zip(found["levels"], (0.35, 0.5, None), strict=True):
        methods = [] if keep is None else [FastV(keep=keep)]
        with api.compress(model, *methods) as session, torch.no_grad():
            out = model.generate(**given, max_new_tokens=2, do_sample=False)
            shown = set(found["visual_tokens"])
            expected = {str(i): [t for t in session.kept(i).tolist() if t in shown] for i in range(8)}
            asked = session.stats.asked
        assert level["kept"] == expected and level["merged"] == {} and level["asked"] == asked
        assert level["answer"] == processor.tokenizer.decode(out[0, prompt.tokens :], skip_special_tokens=True)
    assert len(found["visual_tokens"]) == 144 and found["views"][0]["cells"][0] == found["visual_tokens"][:12]
    cut = found["levels"][0]["cuts"][0]
    assert (cut["before"], cut["after"]) == (144, len(found["levels"][0]["kept"]["7"])) and len(cut["scores"]) == 144


def test_page_and_sheet_of_crops_and_merges(laconic, llava_next, large, tmp_path):
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    shown = laconic(
        "inspect", "--model", llava_next, "--image", large, "--method", ToMe.name, "--keep", "0.25", *SHORT,
        "--out", page, "--png", sheet,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert "0.25: 180.0 of 720 visual tokens" in shown.stdout and str(page) in shown.stdout
    html = page.read_text(encoding="utf-8")
    assert "What tome kept of the image" in html and html.count("<canvas") == 5 and "--cols:2" in html
    for outside in ("http:", "https:", "src=", "@import", "url("):
        assert outside not in html
    image = Image.open(sheet)
    assert image.format == "PNG" and image.width > 600
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 500


def test_merges_and_images_of_several_files(laconic, llava, image, tmp_path):
    other = save_image(tmp_path / "other.png", seed=1)
    found = laconic.json(
        "inspect", "--model", llava, "--image", image, "--image", other, "--method", ToMe.name, "--keep", "0.5", *SHORT
    )
    assert [v["name"] for v in found["views"]] == ["image.png", "other.png"]
    half = found["levels"][0]
    for kept, merged in zip(half["kept"].values(), half["merged"].values(), strict=True):
        assert len(kept) == len(merged) == 144 and set(merged.values()) <= set(kept)
        assert not set(map(int, merged)) & set(kept)
        first = {t for line in found["views"][0]["cells"] for t in line}
        assert all((int(a) in first) == (b in first) for a, b in merged.items()), "each image merges within itself"


def test_cache_methods_and_none(laconic, llava, image):
    found = laconic.json("inspect", "--model", llava, "--image", image, "--method", "snapkv:window=4", *SHORT)
    assert [level["label"] for level in found["levels"]] == ["0.055", "0.11", "0.25", "0.5", "1"]
    counts = [sum(map(len, level["kept"].values())) for level in found["levels"]]
    assert counts == sorted(counts) and counts[-1] == 8 * 144
    alone = laconic.json("inspect", "--model", llava, "--image", image, "--max-new-tokens", 1)
    assert [level["label"] for level in alone["levels"]] == ["1"] and alone["question"] == "Describe the image."


def test_budgets_that_cannot_be_kept_are_left_out_or_an_error(laconic, llava, image):
    args = ("inspect", "--model", llava, "--image", image, "--method", ToMe.name, *SHORT)
    found = laconic.json(*args, "--keep", "0.01,0.5")
    assert [level["label"] for level in found["levels"]] == ["0.5", "1"]
    assert len(found["warnings"]) == 1 and "budget 0.01 is left out: tome" in found["warnings"][0]
    assert "tome" in laconic.bad(2, *args, "--keep", "0.01")
    named = laconic.json(*args[: -len(SHORT) - 1], "tome:keep=0.5", *SHORT)
    assert [level["label"] for level in named["levels"]] == ["as given", "1"]


def test_a_lens_reads_words(laconic, llava, image):
    found = laconic.json(
        "inspect", "--model", llava, "--image", image, "--method", FastV.name, "--keep", 0.5, "--lens", "embedlens", *SHORT
    )
    lens = found["lens"]
    assert len(lens["words"]) == len(lens["cosines"]) == 144 and all(len(words) == 3 for words in lens["words"])
    assert all(row == sorted(row, reverse=True) and row[0] <= 1.001 for row in lens["cosines"])
    assert lens["kinds"] == [] and any("no classes" in w for w in found["warnings"])
    assert "embedlens" in laconic.bad(2, "inspect", "--model", llava, "--image", image, "--lens", "magnifier")


def test_what_cannot_be(laconic, llava, model, image, context):
    assert "cannot show images" in laconic.bad(2, "inspect", "--model", model, "--image", image)
    assert "--png" in laconic.bad(2, "inspect", "--model", model, "--context", context, "--png", "a.png")
    assert "--lens" in laconic.bad(2, "inspect", "--model", model, "--context", context, "--lens", "embedlens")
    assert "--keep much is no share; write 0.1 or 10%" in laconic("inspect", "--keep", "much").stderr
    assert "keep=1.5" in laconic.bad(
        2, "inspect", "--model", llava, "--image", image, "--method", FastV.name, "--keep", "1.5"
    )
    missing = laconic.bad(2, "inspect", "--model", llava, "--image", image, "--png", "/nowhere/at/all.png")
    assert "--png /nowhere" in missing
