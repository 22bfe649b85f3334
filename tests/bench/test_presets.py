from pathlib import Path

import pytest

from laconic.bench.grid import EVERYTHING
from laconic.bench.presets import preset, presets
from laconic.errors import UnknownNameError
from laconic.tasks import find_task
from laconic.tasks.scenes.tasks import KINDS
from laconic.tasks.text.retrieval import TASKS
from laconic.testbed.evaluate import SOLVED

WITHOUT_FILES = [name for name in presets() if name not in ("public", "own")]


def test_every_file_is_a_preset():
    folder = Path(preset.__code__.co_filename).parent / "presets"
    assert set(presets()) == {path.stem for path in folder.glob("*.toml")} >= {"demo", "full", "images", "public"}
    assert all(found.description for found in presets().values())


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_presets_can_run(name):
    preset(name).check()


def test_presets_name_tasks_of_their_modality():
    for found in presets().values():
        assert all(find_task(task).modality == found.grid.modality for task in found.grid.tasks)


def test_presets_of_text_use_only_tasks_that_the_uncompressed_model_solves():
    assert preset("full").tasks == preset("leaderboard").tasks == SOLVED
    for found in presets().values():
        if found.grid.modality == "text":
            assert set(found.grid.tasks) <= set(SOLVED) < set(TASKS)


def test_presets_of_images_ask_every_kind_of_question():
    assert preset("images").tasks == preset("images_leaderboard").tasks == KINDS


def test_all_samples_can_be_asked_for():
    assert preset("public").samples == EVERYTHING and preset("public").tasks == ()


def test_an_unknown_preset_gets_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean quick"):
        preset("quik")
