"""All tasks by name: those that come with laconic, and those of other packages."""

from __future__ import annotations

from functools import cache

from laconic.errors import UnknownNameError, closest
from laconic.plugins import Plugins, load_plugins
from laconic.tasks.task import Task


@cache
def _plugins() -> Plugins:
    """What other packages offer in the entry-point group ``laconic.tasks``, a `Task` each."""
    return load_plugins("laconic.tasks")


@cache
def _tasks() -> dict[str, Task]:
    """Name -> task."""
    from laconic.tasks.audio.tasks import SOUND_TASKS
    from laconic.tasks.public import BENCHMARKS
    from laconic.tasks.reasoning.task import REASONING_TASKS
    from laconic.tasks.scenes.patches import PATCH_TASKS
    from laconic.tasks.scenes.tasks import SCENE_TASKS
    from laconic.tasks.text.documents import DOCUMENT_TASKS
    from laconic.tasks.text.languages import TAGGED_NEEDLES
    from laconic.tasks.text.own import OWN
    from laconic.tasks.text.retrieval import RETRIEVAL_TASKS
    from laconic.tasks.text.slots import SLOT_FACTS
    from laconic.tasks.video.tasks import CLIP_TASKS

    known: dict[str, Task] = {}
    for task in (
        *RETRIEVAL_TASKS,
        SLOT_FACTS,
        TAGGED_NEEDLES,
        OWN,
        *DOCUMENT_TASKS,
        *REASONING_TASKS,
        *SCENE_TASKS,
        *PATCH_TASKS,
        *SOUND_TASKS,
        *CLIP_TASKS,
        *BENCHMARKS,
        *_plugins().loaded,
    ):
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
    """The task called `name`.

    Raises:
        UnknownNameError: there is none; the closest names are offered.
        EntryPointError: it is the name of another package's entry point that cannot be loaded.
    """
    if name not in _tasks():
        _plugins().check(name)
        raise UnknownNameError(f"unknown task {name!r}: {closest(name, _tasks())}")
    return _tasks()[name]
