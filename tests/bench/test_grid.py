import dataclasses

import pytest
from helpers import image_formats as formats

from laconic.bench.comparison import comparisons
from laconic.bench.grid import EVERYTHING, Cell, Grid
from laconic.errors import BudgetError, UnknownNameError
from laconic.method import CATALOGUE, list_methods
from laconic.tasks.scenes.tasks import KINDS
from laconic.tasks.task import EVALUATION_SEED

MODES = comparisons()["text"].meanings

TEXT = Grid(("single", "kvturns"), ("random", "h2o"), (0.1, 0.5), (128, 256), ("aware", "turns"), 3, 7)
IMAGES = Grid(("colour", "count"), ("random", "none"), keeps=(0.1, 0.5), samples=3, seed=7)


def test_cells_are_deterministic_and_unique():
    cells = TEXT.cells()
    assert cells == TEXT.cells()
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys)


def test_cells_are_the_whole_product_with_turns_only_where_there_are_several():
    columns = 1 + 2 * 2  # uncompressed, and two methods at two budgets
    assert len(TEXT.cells()) == 3 * 2 * (1 + 2) * columns
    assert {c.task for c in TEXT.cells() if c.mode == "turns"} == {"kvturns"}


def test_a_task_that_needs_earlier_questions_runs_in_several_turns_only():
    cells = dataclasses.replace(TEXT, tasks=("single", "laterneedle"), modes=tuple(MODES)).cells()
    assert {c.mode for c in cells if c.task == "laterneedle"} == {"turns", "turns_aware"}
    assert {c.mode for c in cells if c.task == "single"} == {"aware", "agnostic"}


def test_all_methods_get_the_same_evaluation_seeds():
    seeds: dict[str, set[int]] = {}
    for cell in TEXT.cells():
        seeds.setdefault(cell.method, set()).add(cell.seed)
    assert all(found == {EVALUATION_SEED + 7 + i for i in range(3)} for found in seeds.values())


def test_a_run_that_was_cut_short_is_a_smaller_whole_one():
    cells = TEXT.cells()
    third = cells[: len(cells) // 3]
    assert third == dataclasses.replace(TEXT, samples=1).cells()


def test_the_uncompressed_model_is_always_there_once():
    grid = dataclasses.replace(TEXT, methods=("none", "random"))
    assert grid.columns() == [("none", 1.0), ("random", 0.5), ("random", 0.1)]


def test_a_budget_of_its_own_runs_once():
    grid = dataclasses.replace(TEXT, methods=("snapkv:tokens=20",))
    assert grid.columns()[1:] == [("snapkv:tokens=20", None)]
    assert Cell("single", 128, "aware", "snapkv:tokens=20", None, 1).build().tokens == 20


def test_all_stands_for_every_cache_method():
    names = {cell.method.partition(":")[0] for cell in dataclasses.replace(TEXT, methods=("all",)).cells()} - {"none"}
    assert names == {e.name for e in list_methods() if e.site == "cache"}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tasks": ("singel",)}, UnknownNameError, "did you mean single"),
        ({"modes": ("latr",)}, UnknownNameError, "did you mean later"),
        ({"methods": ("snapvk",)}, UnknownNameError, "did you mean snapkv"),
        ({"methods": ("snapkv:windwo=3",)}, UnknownNameError, "window"),
        ({"methods": ("zzz*",)}, UnknownNameError, "zzz"),
        ({"methods": ("truncate:side=up",)}, BudgetError, "side='up'"),
        ({"keeps": (1.5,)}, BudgetError, "1.5"),
        ({"lengths": (64,)}, BudgetError, "64"),
        ({"samples": 0}, BudgetError, "samples=0"),
        ({"samples": EVERYTHING}, BudgetError, "--samples 100"),
        ({"tasks": ("single", "colour")}, UnknownNameError, "unknown task 'colour'"),
        (
            {"tasks": ("single",), "modes": ("turns",)},
            BudgetError,
            "nothing to run.*kvturns, laterneedle, slots, tagged; laterneedle goes",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_any_work(change, error, text):
    with pytest.raises(error, match=text):
        TEXT.changed(**change).check()


# -- images ---------------------------------------------------------------------------------------------------------------
def test_cells_of_images_are_the_whole_product_sample_by_sample():
    cells = IMAGES.cells()
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 3 * (1 + 2)
    assert {cell.mode for cell in cells} == {"images"}
    assert IMAGES.places() == [(task, 0, "images", 1_000_007 + i) for i in range(3) for task in ("colour", "count")]
    assert IMAGES.changed(samples=1).cells() == cells[: len(cells) // 3]


def test_a_file_gives_what_it_holds(tmp_path):
    grid = Grid(("gqa", "colour"), ("random",), folders=(("gqa", formats.gqa(tmp_path)),), samples=5)
    assert [place.number for place in grid.places() if place.task == "gqa"] == [0, 1, 2]
    assert len(grid.places()) == 3 + 5


def test_all_stands_for_methods_on_visual_tokens(token_methods):
    found = {method for method, _ in IMAGES.changed(methods=("all",)).columns()}
    assert set(token_methods) <= found
    assert all(CATALOGUE[name.partition(":")[0]].site in ("encoder", "tokens") for name in found - {"none"})


def test_default_budgets_are_those_of_the_papers():
    assert Grid(KINDS, ("random",)).keeps == (0.5, 0.25, 0.11, 0.055)


def test_the_modality_is_what_the_tasks_have_in_common():
    assert (TEXT.modality, IMAGES.modality) == ("text", "image")
    assert Grid(("single", "colour"), ("random",)).modality == Grid(("nothing",), ("random",)).modality == "text"
    assert TEXT.changed(tasks=("colour",)).modality == "text"


def test_what_is_not_said_is_the_modalitys():
    grid = Grid(("single",), ("random",))
    assert (grid.keeps, grid.lengths, grid.modes) == ((0.5, 0.25, 0.1), (512,), ("aware", "agnostic"))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tasks": ("color",)}, UnknownNameError, "did you mean colour"),
        ({"tasks": ("mme",)}, BudgetError, "--data mme=FOLDER"),
        ({"folders": (("mmee", "x"),)}, UnknownNameError, "did you mean mme"),
        ({"methods": ("snapvk",)}, UnknownNameError, "did you mean snapkv"),
        ({"methods": ("snap*",)}, UnknownNameError, "no image method"),
        ({"keeps": (1.5,)}, BudgetError, "1.5"),
        ({"modes": ("aware",)}, BudgetError, "modes and lengths"),
        ({"lengths": (512,)}, BudgetError, "modes and lengths"),
        ({"samples": 0}, BudgetError, "samples=0"),
        ({"samples": EVERYTHING}, BudgetError, "--samples 100"),
        ({"tasks": ()}, BudgetError, "nothing to run"),
        ({"tasks": ("colour", "single")}, UnknownNameError, "unknown image task 'single'"),
    ],
)
def test_what_cannot_run_over_images_is_refused_before_any_work(change, error, text):
    with pytest.raises(error, match=text):
        IMAGES.changed(**change).check()


def test_modes_go_by_the_names_that_users_read():
    """Rows keep the names of before, so that a bench of before goes on."""
    shown = ("in view", "later", "turns later", "turns in view")
    stored = ("aware", "agnostic", "turns", "turns_aware")
    assert dataclasses.replace(TEXT, modes=shown).modes == dataclasses.replace(TEXT, modes=stored).modes == stored
    assert tuple(map(TEXT.comparison.shown, stored)) == shown
