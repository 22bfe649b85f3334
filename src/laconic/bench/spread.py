"""A bench whose cells are spread over actors of Ray, on this machine or on a cluster.

Every actor loads the model and runs pieces of the grid that never share a batch, so rows are those of one process, but for
times and for `executor`, `node` and `actor`. Only this process writes results: a row is there when its piece has come back,
and a piece whose actor died is run again by a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from laconic.bench.grid import Cell, Column, Grid
from laconic.bench.runner import ASKING, Bench, Hard, hard_in
from laconic.bench.store import Row, Store
from laconic.errors import LaconicError, SpreadError

TRIES = 2
"""Of a piece whose actor dies; then its cells have failed."""
SHARED_MEMORY = 200 * 2**20
"""Bytes of Ray's object store on this machine; rows are small."""


@dataclass
class Copied:
    """The rows of a store, for another process."""

    rows: dict[str, Row]
    path: Path


class Begun(NamedTuple):
    """What a worker says before it runs anything: cells to run, cells of the grid in all, and what methods refuse."""

    left: list[Cell]
    total: int
    refused: dict[Column, str]


class Done(NamedTuple):
    """A piece that has been run."""

    rows: list[Row]
    failures: list[tuple[str, str]]


class Worker:
    """A bench in an actor's process."""

    def __init__(self, model: str, name: str, grid: Grid, batch: int):
        import laconic

        self.bench = Bench(*laconic.load(model), name, grid, batch)

    def begin(self, written: Copied) -> Begun:
        """Warm up; see `Begun`."""
        left = self.bench.warmed(self.bench.pending(written))
        return Begun(left, self.bench.total, dict(self.bench.refused))

    def run(self, cells: list[Cell], hard: Hard) -> Done:
        """Run a piece."""
        import ray

        here = ray.get_runtime_context()
        where = {"executor": "ray", "node": here.get_node_id()[:12], "actor": here.get_actor_id()[:12]}
        rows: list[Row] = []
        self.bench.failures.clear()
        self.bench.run_cells(cells, hard, lambda row: rows.append(row | where), lambda cell: None)
        return Done(rows, list(self.bench.failures))


@dataclass
class Spread:
    """A grid on actors; has the face of a `Bench`.

    Args:
        model: what `laconic.load` loads, on every node. `name`: of the model, for the rows.
        workers: actors, of one processor each.
        address: of a running cluster, ``ray://HOST:10001``, or "auto"; None starts Ray on this machine.

    Raises:
        SpreadError: Ray is not installed, or the cluster is not there.
    """

    model: str
    name: str
    grid: Grid
    batch: int
    workers: int
    address: str | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    refused: dict[Column, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise SpreadError(
                "ray is not installed; pip install 'laconic-transformers[ray]', or leave --executor out."
            ) from None
        self._ray: Any = ray
        self._begun: Begun | None = None
        self._crew: list[Any] = []

    def __enter__(self) -> Spread:
        local: dict[str, Any] = {"num_cpus": self.workers, "object_store_memory": SHARED_MEMORY, "include_dashboard": False}
        where: dict[str, Any] = {"address": "local", **local} if self.address is None else {"address": self.address}
        try:
            self._ray.init(log_to_driver=False, logging_level="error", **where)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise SpreadError(f"there is no Ray cluster at {self.address}: {_line(error)}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def pending(self, store: Store) -> list[Cell]:
        """See `Bench.pending`; without the cells that methods refuse when they are warmed up.

        Raises:
            SpreadError: no worker could be started.
        """
        self._written = self._ray.put(Copied(dict(store.rows), store.path))
        self._crew = [self._worker() for _ in range(self.workers)]
        try:
            self._begun = self._ray.get(self._crew[0].begin.remote(self._written))
        except self._ray.exceptions.RayActorError as error:
            raise SpreadError(f"no worker could be started: {_line(error)}") from error
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, LaconicError) else error from None
        self.refused |= self._begun.refused
        return self._begun.left

    @property
    def total(self) -> int:
        """Cells of the grid without the refused ones."""
        assert self._begun is not None
        return self._begun.total

    def run(self, store: Store, each: Callable[[Cell], None] = lambda cell: None) -> None:
        """Run the pending cells; see `Bench.run`. `pending` came before."""
        assert self._begun is not None
        hard, waiting = hard_in(store), deque((piece, 1) for piece in self._pieces(self._begun.left))
        for worker in self._crew[1:]:
            worker.begin.remote(self._written)
        idle = list(self._crew)
        running: dict[Any, tuple[Any, list[Cell], int]] = {}
        while waiting or running:
            while idle and waiting:
                piece, tries = waiting.popleft()
                worker = idle.pop()
                running[worker.run.remote(piece, hard)] = worker, piece, tries
            (ref,), _ = self._ray.wait(list(running), num_returns=1)
            worker, piece, tries = running.pop(ref)
            try:
                done: Done = self._ray.get(ref)
            except self._ray.exceptions.RayActorError as error:
                worker = self._worker()
                worker.begin.remote(self._written)
                if tries < TRIES:
                    waiting.appendleft((piece, tries + 1))
                else:
                    said = f"its worker died {TRIES} times: {_line(error)}"
                    self.failures += [(cell.key, said) for cell in piece]
            else:
                for row in done.rows:
                    store.append(row)
                self.failures += done.failures
                for cell in piece:
                    each(cell)
            idle.append(worker)

    def _worker(self) -> Any:
        actor = self._ray.remote(Worker).options(num_cpus=1)
        return actor.remote(self.model, self.name, self.grid, self.batch)

    def _pieces(self, left: Sequence[Cell]) -> list[list[Cell]]:
        """The cells to run, by the portions of the grid that they are of."""
        by_place: dict[Any, list[Cell]] = {}
        for cell in left:
            by_place.setdefault(cell.place, []).append(cell)
        portions = ASKING[self.grid.modality].portions(self.grid, self.batch)
        pieces = [[cell for place in portion for cell in by_place.get(place, ())] for portion in portions]
        return [piece for piece in pieces if piece]


def _line(error: BaseException) -> str:
    """The last line of an error that Ray has wrapped in a trace."""
    return str(error).strip().splitlines()[-1].strip()
