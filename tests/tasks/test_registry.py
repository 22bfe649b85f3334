"""Tasks by name: those of laconic and those of other packages."""

from importlib.metadata import EntryPoint

import pytest

from laconic import plugins
from laconic.errors import EntryPointError, UnknownNameError
from laconic.tasks import find_task, list_tasks, registry
from laconic.tasks.audio.questions import QUESTIONS
from laconic.tasks.reasoning.task import REASONING_TASKS
from laconic.tasks.text.retrieval import TASKS, Retrieval


def test_every_task_is_found_by_its_name():
    names = [task.name for task in list_tasks()]
    assert len(names) == len(set(names))
    assert all(find_task(name).name == name for name in names)


def test_tasks_are_listed_by_modality():
    assert {task.name for task in list_tasks("text")} == {
        *TASKS,
        "slots",
        "tagged",
        "own",
        *(task.name for task in REASONING_TASKS),
    }
    assert {"colour", "large_reading", "mme"} <= {task.name for task in list_tasks("image")}
    assert {"facts", "continuation"} == {task.name for task in list_tasks("document")}
    assert {f"sound_{kind}" for kind in QUESTIONS} == {task.name for task in list_tasks("audio")}
    assert {"clip_reading_4", "clip_times_32"} <= {task.name for task in list_tasks("video")}
    kinds = ("text", "document", "image", "video", "audio")
    assert sorted(task.name for task in list_tasks()) == sorted(task.name for kind in kinds for task in list_tasks(kind))


def test_an_unknown_name_gets_the_closest():
    with pytest.raises(UnknownNameError, match="did you mean single"):
        find_task("singel")


class Point:
    """An entry point of another package."""

    def __init__(self, task):
        self.task, self.name = task, task.name

    def load(self):
        return self.task


@pytest.fixture
def others(monkeypatch):
    """Makes tasks known as if another package had entered them."""

    def enter(*tasks):
        points = [task if isinstance(task, EntryPoint) else Point(task) for task in tasks]
        monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "laconic.tasks" else [])
        forget()

    def forget():
        registry._plugins.cache_clear()
        registry._tasks.cache_clear()

    yield enter
    monkeypatch.undo()
    forget()


def test_tasks_of_other_packages_are_known(others):
    others(Retrieval("theirs"))
    assert find_task("theirs").name == "theirs" and find_task("single").name == "single"


def test_a_name_that_is_taken_is_refused(others):
    others(Retrieval("mme"))
    with pytest.raises(ValueError, match="'mme' is taken by Benchmark"):
        list_tasks()


def test_a_task_of_another_package_that_fails_to_import_takes_no_other_with_it(others):
    others(EntryPoint("broken", "no_such_package:TASK", "laconic.tasks"), Retrieval("theirs"))
    with pytest.warns(UserWarning, match=r"'broken' \(no_such_package:TASK\).*laconic continues without it"):
        assert find_task("theirs").name == "theirs"
    with pytest.raises(EntryPointError, match=r"'broken' .*No module named 'no_such_package'"):
        find_task("broken")
    with pytest.raises(UnknownNameError):
        find_task("brokn")
