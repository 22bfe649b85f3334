import pytest

from laconic.bench.comparison import comparisons, of_mode
from laconic.bench.specs import build
from laconic.method import find
from laconic.tasks import list_tasks


def test_every_modality_of_a_task_has_a_comparison():
    assert next(iter(comparisons())) == "text"
    assert {task.modality for task in list_tasks()} <= set(comparisons())


def test_a_mode_belongs_to_one_comparison():
    modes = [mode for one in comparisons().values() for mode in one.meanings]
    assert len(modes) == len(set(modes))
    assert all(of_mode(mode) is one for one in comparisons().values() for mode in one.meanings)
    assert all(set(one.modes) <= set(one.meanings) for one in comparisons().values())
    assert of_mode("of another time") is comparisons()["text"]


@pytest.mark.parametrize("modality", comparisons())
def test_what_the_data_name_exists(modality):
    one = comparisons()[modality]
    for name in one.references:
        assert find(name).name == name
    assert set(one.first) <= set(one.references)
    for name, spec in one.settings.items():
        assert build(spec, None).name == find(name).name == name
    assert one.cost in ("kv_share", "flops_share")


@pytest.mark.parametrize("modality", comparisons())
def test_columns_that_can_be_left_out_are_columns(modality):
    one = comparisons()[modality]
    columns = {*one.table.first, *one.table.last, "tasks", *(f"vs {name}" for name in one.references)}
    assert set(one.table.spare) <= columns


def test_titles_of_sections():
    text, image = comparisons()["text"], comparisons()["image"]
    assert text.title("turns", 1024).startswith("mode turns later, 1,024 tokens: the context is compressed once")
    assert image.title("images", 0) == "images: the image and the question are read and compressed together"
    assert (text.sized, image.sized) == (True, False)
