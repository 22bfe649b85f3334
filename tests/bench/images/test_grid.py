import pytest
from helpers import image_formats as formats

from laconic.bench.grid import IMAGES
from laconic.bench.images.grid import EVERYTHING, IMAGE_PRESETS, ImageGrid, is_image_task
from laconic.errors import BudgetError, UnknownNameError
from laconic.method import CATALOGUE
from laconic.tasks.scenes.suite import KINDS

SMALL = ImageGrid(("colour", "count"), ("random", "none"), keeps=(0.1, 0.5), samples=3, seed=7)


def test_cells_are_the_whole_product_sample_by_sample():
    cells = SMALL.cells()
    assert len({cell.key for cell in cells}) == len(cells) == 2 * 3 * (1 + 2)
    assert {cell.mode for cell in cells} == {IMAGES}
    assert SMALL.picked() == [(task, 1_000_007 + i) for i in range(3) for task in ("colour", "count")]
    assert SMALL.changed(samples=1).cells() == cells[: len(cells) // 3]


def test_a_file_gives_what_it_holds(tmp_path):
    grid = ImageGrid(("gqa", "colour"), ("random",), folders=(("gqa", formats.gqa(tmp_path)),), samples=5)
    assert [number for task, number in grid.picked() if task == "gqa"] == [0, 1, 2]
    assert len(grid.picked()) == 3 + 5


def test_all_stands_for_methods_on_visual_tokens(methods):
    found = {method for method, _ in SMALL.changed(methods=("all",)).columns()}
    assert set(methods) <= found
    assert all(CATALOGUE[name.partition(":")[0]].site in ("encoder", "tokens") for name in found - {"none"})


def test_default_budgets_are_those_of_the_papers():
    assert ImageGrid(KINDS, ("random",)).keeps == (0.5, 0.25, 0.11, 0.055)


def test_presets_name_known_tasks():
    for _, grid in IMAGE_PRESETS.values():
        assert all(is_image_task(task) for task in grid.tasks)
    assert not is_image_task("single")


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
    ],
)
def test_what_cannot_run_is_refused_before_any_work(change, error, text):
    with pytest.raises(error, match=text):
        SMALL.changed(**change).check()
