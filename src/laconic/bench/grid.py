"""What to run: a `Grid` of tasks, methods, budgets, lengths and modes, and the cells it stands for, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Self

from laconic.errors import BudgetError, LaconicError, UnknownNameError, closest
from laconic.method import CATALOGUE, Entry, Method, create_method, list_methods
from laconic.tasks.text.retrieval import EVALUATION_SEED, MIN_TOKENS, SUITE, TASKS

MODES: dict[str, str] = {
    "aware": "context, question and the opening of the answer are compressed together (RULER's way)",
    "agnostic": "the context is compressed before the question is known; the question is stored whole",
    "turns": "the context is compressed once; several questions follow on the one cache, each answered in turn",
    "turns_aware": "context and first question are compressed together; further questions follow on the one cache",
}
SEVERAL_TURNS = ("kvturns", "laterneedle")
NONE = "none"
IMAGES = "images"
"""The mode of rows over images."""
REFERENCES = ("random", "snapkv")
"""Methods that the others are compared with, sample by sample."""
IMAGE_REFERENCES = ("random_visual", "downsample", "pool")
"""The same over images."""
# The papers' windows, and what they leave unpacked, are made for prompts of thousands of tokens; ours are short.
SETTINGS = {
    "snapkv": "snapkv:window=16",
    "adakv": "adakv:scorer=snapkv:window=16",
    "ems": "ems:window=16",
    "gear": "gear:group=32,buffer=32",
    "kivi": "kivi:residual=32",
    "lococo": "lococo:tokens=128",  # what its weights were trained for
    "minicache": "minicache:bits=4",
}


@dataclass(frozen=True)
class Cell:
    """One row to be: a sample of a task under a method and a budget.

    Attributes:
        method: ``"none"`` for the uncompressed model, or a method as `laconic.create_method` reads it.
        keep: share asked for; None where `method` names its own budget.
        seed: of the sample, 1,000,000 or more; the same seeds for all methods.
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

    def build(self) -> Method | None:
        """The method with its budget; None for the uncompressed model."""
        return None if self.method == NONE else create_method(self.method, keep=self.keep)


@dataclass(frozen=True)
class Grid:
    """What to run. `cells` lists it.

    Args:
        tasks: names of `laconic.tasks.text.retrieval.TASKS`.
        methods: as `laconic.create_method` reads them; ``"all"`` or a pattern with ``*`` stands for cache methods of the
            catalogue.
        keeps: shares to keep.
        lengths: tokens of a sample, question and answer included.
        modes: of `MODES`; the last two take only tasks with several questions.
        samples: per task, length and mode; the same for every method.
        seed: of the first sample, counted from 1,000,000 (no training sample lies there), and of the bootstrap.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    keeps: tuple[float, ...] = (0.5, 0.25, 0.1)
    lengths: tuple[int, ...] = (512,)
    modes: tuple[str, ...] = ("aware", "agnostic")
    samples: int = 10
    seed: int = 0

    kind: ClassVar[str] = "cache"
    """Of the methods that ``"all"`` and patterns stand for."""

    def changed(self, **parts: object) -> Self:
        """The same grid with the parts that are not None replaced."""
        return replace(self, **{k: v for k, v in parts.items() if v is not None})  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise before any work if something in the grid cannot run.

        Raises:
            UnknownNameError: a task, mode or method that does not exist; the closest names are offered.
            BudgetError: a share, length or count that is out of range, or nothing to run at all.
        """
        for task in self.tasks:
            if task not in TASKS:
                raise UnknownNameError(f"unknown task {task!r}: {closest(task, TASKS)}")
        for mode in self.modes:
            if mode not in MODES:
                raise UnknownNameError(f"unknown mode {mode!r}: {closest(mode, MODES)}")
        for length in self.lengths:
            if length < MIN_TOKENS:
                raise BudgetError(f"length={length} is too short for a sample; ask for at least {MIN_TOKENS} tokens.")
        self.check_methods()
        if not self.cells():
            raise BudgetError(
                f"nothing to run: tasks {', '.join(self.tasks) or '(none)'} in modes {', '.join(self.modes) or '(none)'}. "
                f"The modes of several turns need a task with several questions: {', '.join(SEVERAL_TURNS)}; "
                "laterneedle goes with no other mode."
            )

    def check_methods(self) -> None:
        """The part of `check` that does not look at tasks."""
        if self.samples < 1 or self.seed < 0:
            raise BudgetError(f"samples={self.samples}, seed={self.seed}: samples is at least 1, seed at least 0.")
        for keep in self.keeps:
            for spec in self._methods():
                _build(spec, keep)

    def covers(self, entry: Entry) -> bool:
        """True for methods that ``"all"`` and patterns stand for."""
        return entry.site == "cache"

    def _methods(self) -> list[str]:
        """Method specs with patterns resolved, each once; the uncompressed model first."""
        found = [NONE]
        for spec in self.methods:
            found += self._resolve(spec)
        return list(dict.fromkeys(found))

    def _resolve(self, spec: str) -> list[str]:
        """A method spec as it is, or the methods that a pattern stands for."""
        if spec == "all":
            spec = "*"
        if "*" not in spec:
            return [spec]
        found = [entry.name for entry in list_methods(spec) if self.covers(entry)]
        if not found:
            raise UnknownNameError(f"no {self.kind} method matches {spec!r}: {closest(spec.strip('*'), CATALOGUE)}")
        return [SETTINGS.get(name, name) for name in found]

    def columns(self) -> list[tuple[str, float | None]]:
        """(method, keep) pairs in order: uncompressed first, then every method at every budget."""
        pairs: list[tuple[str, float | None]] = []
        for spec in self._methods():
            if spec == NONE:
                pairs.append((spec, 1.0))
            elif budget_from_parameters(spec):
                pairs.append((spec, None))
            else:
                pairs += [(spec, keep) for keep in sorted(set(self.keeps), reverse=True)]
        return pairs

    def cells(self) -> list[Cell]:
        """All rows to be, in a fixed order: sample by sample, so that a run that was cut short is a smaller whole one."""
        return [
            Cell(task, length, mode, method, keep, EVALUATION_SEED + self.seed + number)
            for number in range(self.samples)
            for length in dict.fromkeys(self.lengths)
            for task in dict.fromkeys(self.tasks)
            for mode in dict.fromkeys(self.modes)
            if _fits(task, mode)
            for method, keep in self.columns()
        ]


def _fits(task: str, mode: str) -> bool:
    """Several turns need several questions; laterneedle, asked once, is multikey again."""
    return task in SEVERAL_TURNS if mode.startswith("turns") else task != "laterneedle"


def budget_from_parameters(spec: str) -> bool:
    """True when the spec names keep, tokens or bytes itself."""
    pairs = (pair.partition("=")[0].strip() for pair in spec.partition(":")[2].split(","))
    return bool({"keep", "tokens", "bytes"} & set(pairs))


def _build(spec: str, keep: float) -> None:
    try:
        Cell("", 0, "", spec, None if budget_from_parameters(spec) else keep, 0).build()
    except LaconicError:
        raise
    except (TypeError, ValueError) as error:  # what a method says of its own parameters
        raise BudgetError(f"{spec!r}: {error}") from error


def split_methods(texts: Iterable[str]) -> tuple[str, ...]:
    """Method specs from comma-separated lists; ``"snapkv:window=16,kernel=7,h2o"`` is two of them."""
    found: list[str] = []
    for text in texts:
        first = True
        for piece in filter(None, (p.strip() for p in text.split(","))):
            key = piece.partition(":")[0]
            if not first and "=" in key:  # a further parameter of the method before it
                found[-1] += "," + piece
            else:
                found.append(piece)
            first = False
    return tuple(found)


_BASELINES = ("random", "truncate:side=middle", "streaming_llm")
_SCORERS = ("snapkv:window=16", "adakv:scorer=snapkv:window=16", "expected_attention", "keydiff")

PRESETS: dict[str, tuple[str, Grid]] = {
    "demo": (
        "two tasks, six methods, three budgets, with and without the question in view, few samples: under a minute",
        Grid(
            ("multikey", "multivalue"),
            ("random", "streaming_llm", *_SCORERS),
            modes=("aware", "agnostic"),
            samples=4,
        ),
    ),
    "quick": (
        "four tasks, ten methods, all modes at 512 tokens: minutes",
        Grid(
            ("multikey", "multiquery", "multivalue", "kvturns"),
            (*_BASELINES, "h2o", "tova", *_SCORERS, "pyramidkv"),
            modes=tuple(MODES),
            samples=10,
        ),
    ),
    "leaderboard": (
        "every task and cache method, four budgets, one and several turns, with and without the question in view: an hour",
        Grid(
            SUITE,
            ("all",),
            keeps=(0.5, 0.25, 0.1, 0.05),
            modes=tuple(MODES),
            samples=16,
        ),
    ),
    "full": (
        "every task and cache method, four budgets, three lengths, all modes: hours",
        Grid(
            SUITE,
            ("all",),
            keeps=(0.5, 0.25, 0.1, 0.05),
            lengths=(512, 1024, 2048),
            modes=tuple(MODES),
            samples=50,
        ),
    ),
}


def preset(name: str, among: Mapping[str, tuple[str, Grid]] = MappingProxyType(PRESETS)) -> Grid:
    """The grid called `name`; raises `UnknownNameError` with the closest names."""
    if name not in among:
        raise UnknownNameError(f"unknown preset {name!r}: {closest(name, among)}")
    return among[name][1]
