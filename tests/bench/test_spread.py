"""A bench on actors of Ray: the same rows as in one process, and a killed worker loses nothing."""

import os
import signal
import time
from importlib.metadata import PackageNotFoundError, version

import pytest
from helpers.bench_tools import save_tiny

import laconic
from laconic.bench.grid import Grid
from laconic.bench.runner import ASKING, Bench
from laconic.bench.spread import Spread, Worker
from laconic.bench.store import Store, read
from laconic.errors import SpreadError, StoreError

GRID = Grid(("single", "kvturns"), ("random", "snapkv:window=8"), (0.5, 0.1), (128,), ("agnostic", "turns"), 2)
OWN = ("seconds_first_token", "seconds_per_token", "seconds_compress", "peak_memory", "executor", "node", "actor")


def installed():
    try:
        return bool(version("ray"))
    except PackageNotFoundError:
        return False


needs_ray = [pytest.mark.slow, pytest.mark.skipif(not installed(), reason="Ray is not installed here, see `make ray`")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """Rows of one process, by key."""
    with Store(tmp_path_factory.mktemp("alone") / "results.jsonl") as store:
        Bench(*laconic.load(folder), "tiny", GRID).run(store)
        return {key: steady(row) for key, row in store.rows.items()}


def steady(row):
    settled = {name: value for name, value in row.items() if name not in OWN}
    return settled | {"machine": row["machine"] | {"threads": 1}}


def test_pieces_are_the_grid(folder):
    """Every cell is in one piece, and what may share a batch stays together."""
    spread = object.__new__(Spread)
    spread.grid, spread.batch = GRID, 2
    cells = GRID.cells()
    pieces = spread._pieces(cells[3:])
    assert sorted(c.key for piece in pieces for c in piece) == sorted(c.key for c in cells[3:])
    assert all(len({cell.place for cell in piece}) == 1 for piece in pieces)
    images = Grid(("colour",), ("random_visual",), (0.5,), samples=40)
    portions = ASKING["image"].portions(images, 2)
    assert [len(portion) for portion in portions] == [16, 16, 8]


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(SpreadError, match=r"pip install 'laconic-transformers\[ray\]'"):
        Spread("m", "m", GRID, 1, 2)


class TestRay:
    pytestmark = needs_ray

    def test_two_workers_give_the_rows_of_one_process(self, folder, alone, tmp_path):
        with Store(tmp_path / "results.jsonl") as store, Spread(folder, "tiny", GRID, 16, 2) as spread:
            assert len(spread.pending(store)) == spread.total == len(alone)
            seen = []
            spread.run(store, seen.append)
            assert sorted(cell.key for cell in seen) == sorted(alone) and not spread.failures
        rows = read(tmp_path / "results.jsonl")
        assert {row["key"]: steady(row) for row in rows} == alone and len(rows) == len(alone)
        assert {row["executor"] for row in rows} == {"ray"} and len({row["actor"] for row in rows}) == 2

    def test_a_killed_worker_loses_nothing_and_the_rest_is_resumed(self, folder, alone, tmp_path):
        """A worker is killed after the first piece; then the run is broken off, and a second one finishes it."""
        path, killed = tmp_path / "results.jsonl", []
        with Store(path) as store, Spread(folder, "tiny", GRID, 16, 2) as spread:
            spread.pending(store)

            def each(cell):
                if not killed:
                    killed.append(kill_a_worker())
                if len(store) > len(alone) // 2:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                spread.run(store, each)
            there = len(store)
        assert 0 < there < len(alone)
        with Store(path) as store, Spread(folder, "tiny", GRID, 16, 2) as spread:
            assert len(spread.pending(store)) == len(alone) - there
            spread.run(store)
            assert not spread.failures
        assert {row["key"]: steady(row) for row in read(path)} == alone

    def test_a_piece_that_kills_its_worker_each_time_fails_alone(self, folder, tmp_path, monkeypatch):
        class Deadly(Worker):  # of this function, so Ray sends it to the actors as it is
            def run(self, cells, hard):
                if (cells[0].task, cells[0].seed) == ("kvturns", 1_000_000):
                    os._exit(1)
                return super().run(cells, hard)

        monkeypatch.setattr("laconic.bench.spread.Worker", Deadly)
        few = GRID.changed(modes=("agnostic",), methods=("random",), keeps=(0.5,), samples=1)
        with Store(tmp_path / "results.jsonl") as store, Spread(folder, "tiny", few, 16, 1) as spread:
            spread.pending(store)
            spread.run(store)
        assert {key for key, _ in spread.failures} == {c.key for c in few.cells() if c.task == "kvturns"}
        assert all("its worker died 2 times" in said for _, said in spread.failures)
        assert set(store.rows) == {c.key for c in few.cells() if c.task == "single"}

    def test_other_settings_and_missing_models_are_errors(self, folder, alone, tmp_path):
        with Store(tmp_path / "results.jsonl") as store, Spread(folder, "tiny", GRID, 16, 1) as spread:
            row = next(iter(alone.values()))
            store.append(row | {"settings": row["settings"] | {"dtype": "bfloat16"}})
            with pytest.raises(StoreError, match="dtype: bfloat16 in the file, float32 now"):
                spread.pending(store)
        with (
            Store(tmp_path / "more.jsonl") as store,
            Spread(str(tmp_path), "none", GRID, 16, 1) as spread,
            pytest.raises(SpreadError, match="no worker could be started"),
        ):
            spread.pending(store)


def kill_a_worker():
    """SIGKILL of one process that Ray runs a `Worker` in."""
    import psutil

    for process in psutil.Process(os.getpid()).children(recursive=True):
        if "ray::Worker" in " ".join(process.cmdline()) and "run" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            return process.pid
    time.sleep(0)
    raise AssertionError("no worker is running")
