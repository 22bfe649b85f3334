"""Images to calibrate on and to train with: read when they are needed, in an order that follows from the seed."""

import json

import pytest
from PIL import Image

from laconic import MediaError
from laconic.fit.images import from_file, numbered, scene_number, scenes
from laconic.tasks.task import EVALUATION_SEED


def write(folder, lines):
    file = folder / "samples.jsonl"
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return file


@pytest.fixture
def three(tmp_path):
    """A file of three questions about one image."""
    Image.new("RGB", (8, 6), (255, 0, 0)).save(tmp_path / "red.png")
    return write(tmp_path, [{"image": "red.png", "question": f"{i}?", "answer": str(i)} for i in range(3)] + [""])


def test_an_image_is_read_upright_when_it_is_needed(tmp_path):
    turned = Image.new("RGB", (8, 6), (0, 0, 255))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"no image")
    lines = [{"image": "a.jpg", "question": "What?"}, {"image": "broken.png", "question": "What?"}]
    asked = from_file(write(tmp_path, lines))
    assert asked[0].shown()[0].size == (6, 8) and asked[0].answers == ("",)
    with pytest.raises(MediaError, match=r"broken\.png is not an image"):
        asked[1].shown()


@pytest.mark.parametrize("line", ["{", "3", {"question": "?"}, {"image": "red.png"}, {"image": "none.png", "question": "?"}])
def test_a_line_that_does_not_fit_is_named(three, line):
    file = write(three.parent, [{"image": "red.png", "question": "?"}, line])
    with pytest.raises(ValueError, match="line 2: needs JSON with image and question"):
        from_file(file)


def test_training_needs_answers(three):
    with pytest.raises(ValueError, match="line 1: needs JSON with image, question and answer"):
        numbered(str(write(three.parent, [{"image": "red.png", "question": "?"}])), 0)


def test_each_pass_over_a_file_shows_all_in_another_order(three):
    draw = numbered(str(three), 1)
    passes = [[draw(3 * turn + i).answers[0] for i in range(3)] for turn in range(12)]
    assert all(sorted(one) == ["0", "1", "2"] for one in passes) and len({tuple(one) for one in passes}) > 2
    again = numbered(str(three), 1)
    assert [again(n).answers[0] for n in (35, 0, 17)] == [passes[11][2], passes[0][0], passes[5][2]]


def test_scenes_by_number_are_those_of_the_seed():
    for seed, number in ((0, 7), (2, 5), (999_999, 3)):
        assert numbered("", seed)(number).question == scenes(1, scene_number(seed, number))[0].question
    assert scene_number(0, 7) == 7


@pytest.mark.parametrize("seed", [0, 9, 10, 999_999])
def test_no_training_draws_what_evaluation_does(seed):
    drawn = [scene_number(seed, number) for number in range(0, 1_000_000, 999)]
    assert min(drawn) >= 0 and max(drawn) < EVALUATION_SEED


def test_no_two_seeds_begin_alike():
    assert len({scene_number(seed, 0) for seed in range(5000)}) == 5000
