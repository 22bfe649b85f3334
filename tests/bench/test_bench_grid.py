import dataclasses

import pytest

from laconic.bench.grid import MODES, PRESETS, SEVERAL_TURNS, Cell, Grid, budget_from_parameters, preset, split_methods
from laconic.errors import BudgetError, UnknownNameError
from laconic.method import list_methods
from laconic.tasks.text.retrieval import EVALUATION_SEED, SUITE, TASKS

SMALL = Grid(("single", "kvturns"), ("random", "h2o"), (0.1, 0.5), (128, 256), ("aware", "turns"), 3, 7)


def test_cells_are_deterministic_and_unique():
    cells = SMALL.cells()
    assert cells == SMALL.cells()
    keys = [cell.key for cell in cells]
    assert len(set(keys)) == len(keys)


def test_cells_are_the_whole_product_with_turns_only_where_there_are_several():
    columns = 1 + 2 * 2  # uncompressed, and two methods at two budgets
    assert len(SMALL.cells()) == 3 * 2 * (1 + 2) * columns
    assert {c.task for c in SMALL.cells() if c.mode == "turns"} == {"kvturns"} < set(SEVERAL_TURNS)


def test_a_task_that_needs_earlier_questions_runs_in_several_turns_only():
    cells = dataclasses.replace(SMALL, tasks=("single", "laterneedle"), modes=tuple(MODES)).cells()
    assert {c.mode for c in cells if c.task == "laterneedle"} == {"turns", "turns_aware"}
    assert {c.mode for c in cells if c.task == "single"} == {"aware", "agnostic"}


def test_all_methods_get_the_same_evaluation_seeds():
    seeds: dict[str, set[int]] = {}
    for cell in SMALL.cells():
        seeds.setdefault(cell.method, set()).add(cell.seed)
    assert all(found == {EVALUATION_SEED + 7 + i for i in range(3)} for found in seeds.values())


def test_a_run_that_was_cut_short_is_a_smaller_whole_one():
    cells = SMALL.cells()
    third = cells[: len(cells) // 3]
    assert third == dataclasses.replace(SMALL, samples=1).cells()


def test_the_uncompressed_model_is_always_there_once():
    grid = dataclasses.replace(SMALL, methods=("none", "random"))
    assert grid.columns() == [("none", 1.0), ("random", 0.5), ("random", 0.1)]


def test_own_budget_runs_once_and_is_found():
    assert budget_from_parameters("snapkv:window=16,tokens=20") and not budget_from_parameters("adakv:scorer=keydiff")
    grid = dataclasses.replace(SMALL, methods=("snapkv:tokens=20",))
    assert grid.columns()[1:] == [("snapkv:tokens=20", None)]
    assert Cell("single", 128, "aware", "snapkv:tokens=20", None, 1).build().tokens == 20


def test_all_stands_for_every_cache_method():
    names = {cell.method.partition(":")[0] for cell in dataclasses.replace(SMALL, methods=("all",)).cells()} - {"none"}
    assert names == {e.name for e in list_methods() if e.site == "cache"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_run(name):
    preset(name).check()


def test_presets_use_only_tasks_that_the_uncompressed_model_solves():
    assert preset("full").tasks == SUITE
    for _, grid in PRESETS.values():
        assert set(grid.tasks) <= set(SUITE) < set(TASKS)


def test_splitting_keeps_parameters_with_their_method():
    given = ["snapkv:window=16,kernel=7,h2o", "adakv:scorer=snapkv:window=8,alpha=0.1"]
    assert split_methods(given) == ("snapkv:window=16,kernel=7", "h2o", "adakv:scorer=snapkv:window=8,alpha=0.1")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"tasks": ("singel",)}, UnknownNameError, "did you mean single"),
        ({"modes": ("awear",)}, UnknownNameError, "did you mean aware"),
        ({"methods": ("snapvk",)}, UnknownNameError, "did you mean snapkv"),
        ({"methods": ("snapkv:windwo=3",)}, UnknownNameError, "window"),
        ({"methods": ("zzz*",)}, UnknownNameError, "zzz"),
        ({"methods": ("truncate:side=up",)}, BudgetError, "side='up'"),
        ({"keeps": (1.5,)}, BudgetError, "1.5"),
        ({"lengths": (64,)}, BudgetError, "64"),
        ({"samples": 0}, BudgetError, "samples=0"),
        ({"tasks": ("single",), "modes": ("turns",)}, BudgetError, "nothing to run"),
    ],
)
def test_what_cannot_run_is_refused_before_any_work(change, error, text):
    with pytest.raises(error, match=text):
        SMALL.changed(**change).check()


def test_unknown_preset_gets_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean quick"):
        preset("quik")
