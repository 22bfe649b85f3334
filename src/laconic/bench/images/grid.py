"""What a bench over images runs: suites x methods x budgets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from laconic.bench.grid import IMAGES, Cell, Grid
from laconic.errors import BudgetError, UnknownNameError, closest
from laconic.method import Entry
from laconic.tasks.public import PUBLIC, suite
from laconic.tasks.sample import Suite
from laconic.tasks.scenes.suite import KINDS, LARGE_KINDS, scenes

EVERYTHING = 10**9
"""As a number of samples: all that a file holds."""


@dataclass(frozen=True)
class ImageGrid(Grid):
    """What to run over images.

    Args:
        tasks: kinds of questions about the testbed's scenes, and public benchmarks.
        methods: as `laconic.create_method` reads them; ``"all"`` or a pattern with ``*`` stands for methods that remove or
            merge visual tokens, in the encoder or behind it.
        folders: (benchmark, folder) with the files of each public benchmark among the tasks.
        seed: number of samples that are left out at the start of every suite; also of the bootstrap.
    """

    keeps: tuple[float, ...] = (0.5, 0.25, 0.11, 0.055)
    lengths: tuple[int, ...] = (0,)
    modes: tuple[str, ...] = (IMAGES,)
    folders: tuple[tuple[str, Path], ...] = ()

    kind: ClassVar[str] = "image"

    def covers(self, entry: Entry) -> bool:
        return entry.site in ("encoder", "tokens") and "image" in entry.modality

    @cached_property
    def suites(self) -> dict[str, Suite]:
        """Task -> suite; reads the files."""
        folders = dict(self.folders)
        return {task: suite(task, folders[task]) if task in PUBLIC else scenes(task) for task in dict.fromkeys(self.tasks)}

    def check(self) -> None:
        """Raise before any work if something in the grid cannot run.

        Raises:
            UnknownNameError: a task or method that does not exist, a folder for no task.
            BudgetError: a share or count that is out of range, a mode or length, a benchmark without its folder.
            FormatError: a folder that does not hold what its benchmark's layout says.
        """
        if self.modes != (IMAGES,) or self.lengths != (0,):
            raise BudgetError("modes and lengths are of text tasks; a bench over images has neither.")
        folders = dict(self.folders)
        for name in (*self.tasks, *folders):
            if not is_image_task(name):
                raise UnknownNameError(f"unknown image task {name!r}: {closest(name, (*KINDS, *LARGE_KINDS, *PUBLIC))}")
        for task in self.tasks:
            if task in PUBLIC and task not in folders:
                raise BudgetError(f"{task} is read from files; say where they are: --data {task}=FOLDER.")
        self.check_methods()
        if self.samples == EVERYTHING and any(found.count is None for found in self.suites.values()):
            raise BudgetError("scenes have no end; say how many samples: --samples 100.")
        if not self.picked():
            tasks = ", ".join(self.tasks) or "(none)"
            raise BudgetError(f"nothing to run: tasks {tasks} have no sample behind seed={self.seed}.")

    def picked(self) -> list[tuple[str, int]]:
        """(task, number) of all samples: the first of every task, then the second ..., so that a run that was cut short is a
        smaller whole one."""
        lists = [(task, found.numbers(self.samples, self.seed)) for task, found in self.suites.items()]
        most = max((len(numbers) for _, numbers in lists), default=0)
        return [(task, numbers[i]) for i in range(most) for task, numbers in lists if i < len(numbers)]

    def cells_of(self, task: str, number: int) -> list[Cell]:
        """Rows to be of one sample."""
        return [Cell(task, 0, IMAGES, method, keep, number) for method, keep in self.columns()]

    def cells(self) -> list[Cell]:
        """All rows to be."""
        return [cell for task, number in self.picked() for cell in self.cells_of(task, number)]


def is_image_task(name: str) -> bool:
    """True for kinds of questions about scenes and for public benchmarks."""
    return name in KINDS or name in LARGE_KINDS or name in PUBLIC


GATHERED = ("random_visual", "pool", "visionzip")
VARIANTS = ("recoverable_compression:text=llm", *(f"{name}:positions=gather" for name in GATHERED))
"""What a leaderboard runs besides every method as it is: the question read by the LLM where there is no CLIP text tower, and
some methods with tokens that keep their positions in place of new ones."""
IMAGE_PRESETS: dict[str, tuple[str, ImageGrid]] = {
    "images": (
        "every kind of question about scenes, every method that shortens visual tokens, four budgets, few samples: minutes",
        ImageGrid(KINDS, ("all",), samples=10),
    ),
    "images_leaderboard": (
        "the same and some variants, with 60 samples of each kind: a quarter of an hour on one idle core",
        ImageGrid(KINDS, ("all", *VARIANTS), samples=60),
    ),
    "public": (
        "public benchmarks from files (--data), every method that shortens visual tokens, four budgets, all samples",
        ImageGrid((), ("all",), samples=EVERYTHING),
    ),
}
