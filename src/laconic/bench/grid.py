"""What to run: a `Grid` of tasks, methods, budgets, lengths and modes, and the cells it stands for, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from laconic.bench.comparison import Comparison, comparisons
from laconic.bench.specs import NONE, budget_from_parameters, build, check_spec, resolve
from laconic.errors import BudgetError, UnknownNameError, closest
from laconic.method import Method
from laconic.tasks import Task, find_task, list_tasks

EVERYTHING = 10**9
"""As a number of samples: all samples of a task."""
Column = tuple[str, float | None]
"""A method and a share to keep."""


class Place(NamedTuple):
    """Where one sample of a grid is asked: it has one row for every column."""

    task: str
    length: int
    mode: str
    number: int


@dataclass(frozen=True)
class Cell:
    """A planned row: a sample of a task under a method and a budget.

    Attributes:
        length: tokens of the sample; 0 where the length is not chosen.
        method: ``"none"`` for the uncompressed model, or a method as `laconic.create_method` reads it.
        keep: share asked for; None where `method` names its own budget.
        seed: number of the sample; the same numbers for all methods.
    """

    task: str
    length: int
    mode: str
    method: str
    keep: float | None
    seed: int

    @property
    def key(self) -> str:
        """Identifies the row in a results file of one model."""
        keep = "own" if self.keep is None else f"{self.keep:g}"
        return f"{self.task}/{self.length}/{self.mode}/{self.method}/{keep}/{self.seed}"

    @classmethod
    def at(cls, place: Place, method: str, keep: float | None) -> Cell:
        """The cell of one method and budget at `place`."""
        return cls(place.task, place.length, place.mode, method, keep, place.number)

    @property
    def place(self) -> Place:
        return Place(self.task, self.length, self.mode, self.seed)

    @property
    def column(self) -> Column:
        return self.method, self.keep

    def build(self) -> Method | None:
        """The method with its budget; None for the uncompressed model."""
        return build(self.method, self.keep)


@dataclass(frozen=True)
class Grid:
    """What to run. `cells` lists it.

    Args:
        tasks: names of `laconic.tasks.list_tasks`, all of one modality.
        methods: as `laconic.create_method` reads them; ``"all"`` or a pattern with ``*`` stands for methods of the catalogue
            that act on this modality.
        keeps: shares to keep. `lengths`: tokens of a sample, question and answer included. `modes`: ways of asking; those
            of several turns take only tasks with several questions. Empty: what the modality's `Comparison` has.
        samples: per task, length and mode; the same for every method.
        seed: number of samples that are left out at the start of every task; also the seed of the bootstrap.
        folders: (task, folder) with the files of each task that is read from files.
        modality: of the tasks; empty: what they have in common, text if they have nothing in common.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    keeps: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    modes: tuple[str, ...] = ()
    samples: int = 10
    seed: int = 0
    folders: tuple[tuple[str, Path], ...] = ()
    modality: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "modality", self.modality or common_modality(self.tasks) or "text")
        for name in ("keeps", "lengths", "modes"):
            object.__setattr__(self, name, getattr(self, name) or getattr(self.comparison, name))
        object.__setattr__(self, "modes", tuple(map(self.comparison.stored, self.modes)))

    @property
    def comparison(self) -> Comparison:
        """How methods are compared over these tasks."""
        return comparisons()[self.modality]

    def changed(self, **parts: object) -> Self:
        """The same grid with the parts that are not None replaced."""
        return replace(self, **{k: v for k, v in parts.items() if v is not None})  # type: ignore[arg-type]

    @cached_property
    def _from_files(self) -> dict[str, Task]:
        """Tasks that are read from files, with their samples."""
        folders, found = dict(self.folders), [find_task(name) for name in dict.fromkeys(self.tasks)]
        return {task.name: task.opened(folder=folders[task.name]) for task in found if task.from_files}

    def task(self, name: str) -> Task:
        """The task called `name`; one that is read from files has its samples."""
        return self._from_files.get(name) or find_task(name)

    def check(self) -> None:
        """Raise before any work if something in the grid cannot run.

        Raises:
            UnknownNameError: a task, mode or method that does not exist, or a folder for an unknown task; the closest
                names are offered.
            BudgetError: a share, length or count that is out of range, a task without its folder, or nothing to run.
            FormatError: a folder that does not hold what its task's layout requires.
        """
        self._check_tasks()
        self._check_lengths_and_modes()
        if self.samples < 1 or self.seed < 0:
            raise BudgetError(f"samples={self.samples}, seed={self.seed}: samples is at least 1, seed at least 0.")
        for keep in self.keeps:
            for spec in self._methods():
                check_spec(spec, keep)
        for name in self.tasks:
            if self.samples == EVERYTHING and self.task(name).count is None:
                raise BudgetError(f"{name} has no end of samples; say how many: --samples 100.")
        if not self.places():
            self._refuse_nothing()

    def _check_tasks(self) -> None:
        known = {task.name: task for task in list_tasks(self.modality)}
        kind = "task" if self.modality == "text" else f"{self.modality} task"
        folders = dict(self.folders)
        for name in (*self.tasks, *folders):
            if name not in known:
                raise UnknownNameError(f"unknown {kind} {name!r}: {closest(name, known)}")
        for name in self.tasks:
            if known[name].from_files and name not in folders:
                raise BudgetError(f"{name} is read from files; say where they are: --data {name}=FOLDER.")

    def _check_lengths_and_modes(self) -> None:
        meanings = self.comparison.meanings
        if not self.comparison.sized:
            if self.lengths != (0,) or not set(self.modes) <= set(meanings):
                raise BudgetError(f"modes and lengths are of text tasks; a bench over {self.modality}s has neither.")
            return
        for mode in self.modes:
            if mode not in meanings:
                raise UnknownNameError(f"unknown mode {mode!r}: {closest(mode, map(self.comparison.shown, meanings))}")
        for length in self.lengths:
            for name in self.tasks:
                if length < (least := self.task(name).min_tokens or 0):
                    raise BudgetError(f"length={length} is too short for a sample; ask for at least {least} tokens.")

    def _refuse_nothing(self) -> None:
        tasks = [self.task(name) for name in self.tasks]
        if not any(task.numbers(self.seed, self.samples) for task in tasks):
            raise BudgetError(f"nothing to run: tasks {_listed(self.tasks)} have no sample after the first {self.seed}.")
        known = list_tasks(self.modality)
        several = _listed(task.name for task in known if task.several_turns)
        never_alone = _listed(task.name for task in known if not task.single_turn)
        raise BudgetError(
            f"nothing to run: tasks {_listed(self.tasks)} in modes {_listed(map(self.comparison.shown, self.modes))}. The "
            f"modes of several turns need a task with several questions: {several}; {never_alone} goes with no other mode."
        )

    def _methods(self) -> list[str]:
        """Method specs with patterns resolved, each once; the uncompressed model first."""
        found = [method for spec in self.methods for method in resolve(spec, self.comparison)]
        return list(dict.fromkeys([NONE, *found]))

    def columns(self) -> list[Column]:
        """(method, keep) pairs in order: uncompressed first, then every method at every budget."""
        pairs: list[Column] = []
        for spec in self._methods():
            if spec == NONE:
                pairs.append((spec, 1.0))
            elif budget_from_parameters(spec):
                pairs.append((spec, None))
            else:
                pairs += [(spec, keep) for keep in sorted(set(self.keeps), reverse=True)]
        return pairs

    def places(self) -> list[Place]:
        """All samples to ask: the first of every task, then the second ..., so that an interrupted run is still a complete,
        smaller one."""
        numbers = {name: self.task(name).numbers(self.seed, self.samples) for name in dict.fromkeys(self.tasks)}
        return [
            Place(name, length, mode, own[i])
            for i in range(max(map(len, numbers.values()), default=0))
            for length in dict.fromkeys(self.lengths)
            for name, own in numbers.items()
            if i < len(own)
            for mode in dict.fromkeys(self.modes)
            if self.task(name).fits(mode)
        ]

    def cells(self) -> list[Cell]:
        """All planned rows, sample by sample."""
        columns = self.columns()
        return [Cell.at(place, method, keep) for place in self.places() for method, keep in columns]


def common_modality(tasks: Iterable[str]) -> str | None:
    """The modality that all tasks of these names share; None if they share none."""
    known = {task.name: task.modality for task in list_tasks()}
    found = {known.get(name) for name in tasks}
    return found.pop() if len(found) == 1 else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "(none)"
