"""All tasks by name: those that come with laconic, and those of other packages."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from laconic.errors import UnknownNameError, closest
from laconic.tasks.task import Task


@cache
def _tasks() -> dict[str, Task]:
    """Name -> task. Other packages enter theirs in the entry-point group ``laconic.tasks``, a `Task` each."""
    from laconic.tasks.public import BENCHMARKS
    from laconic.tasks.scenes.tasks import SCENE_TASKS
    from laconic.tasks.text.retrieval import RETRIEVAL_TASKS

    known: dict[str, Task] = {}
    others = [point.load() for point in entry_points(group="laconic.tasks")]
    for task in (*RETRIEVAL_TASKS, *SCENE_TASKS, *BENCHMARKS, *others):
        if task.name in known:
            raise ValueError(
                f"task name {task.name!r} is taken by {type(known[task.name]).__qualname__}; choose another one."
            )
        known[task.name] = task
    return known


def list_tasks(modality: str | None = None) -> list[Task]:
    """All tasks, or those of one modality."""
    return [task for task in _tasks().values() if modality in (None, task.modality)]


def find_task(name: str) -> Task:
    """The task called `name`; raises `UnknownNameError` with the closest names."""
    if name not in _tasks():
        raise UnknownNameError(f"unknown task {name!r}: {closest(name, _tasks())}")
    return _tasks()[name]
