import errno
import json
import os

import pytest

from laconic.bench import store as module
from laconic.bench.store import Store, StoreError, read


def row(name: str, **more: object) -> dict[str, object]:
    return {"key": name, "settings": {"budget": "keep=0.5"}, "machine": {"cores": 2}, "output": "Zeile\nü\u2028", **more}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    with Store(path) as store:
        for name in "abc":
            store.append(row(name))
    return path


def keys(path):
    return [json.loads(line)["key"] for line in path.read_bytes().decode().split("\n")[:-1]]


def test_rows_come_back(path):
    with Store(path) as store:
        assert list(store.rows.values()) == [row("a"), row("b"), row("c")] == read(path)
        assert "a" in store and "d" not in store and len(store) == 3 and not store.repaired


def test_equal_settings_are_held_once(path):
    rows = read(path)
    assert rows[0]["settings"] is rows[2]["settings"]


def test_a_kill_at_every_byte_of_the_last_row_loses_and_doubles_nothing(path):
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for end in range(start, len(whole) + 1):
        path.write_bytes(whole[:end])
        finished = ["a", "b", "c"] if end >= len(whole) - 1 else ["a", "b"]
        assert [r["key"] for r in read(path)] == finished  # reading repairs nothing
        assert path.stat().st_size == end
        with Store(path) as store:
            assert list(store.rows) == finished
            assert store.repaired == (start < end < len(whole))
            for name in "abc":
                if name not in store:
                    store.append(row(name))
        assert path.read_bytes() == whole


def test_a_row_is_never_doubled(path):
    with Store(path) as store, pytest.raises(StoreError, match="already"):
        store.append(row("b"))
    assert keys(path) == ["a", "b", "c"]


def test_a_doubled_row_in_the_file_is_refused(path):
    path.write_bytes(path.read_bytes() + json.dumps(row("a")).encode() + b"\n")
    with pytest.raises(StoreError, match="holds the row a twice"), Store(path):
        pass


@pytest.mark.parametrize("broken", [b"{}", b"nonsense", b"", b"[1]", b'{"key": "x"}'])
def test_a_broken_line_in_the_middle_is_named_and_left_alone(path, broken):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], broken, *lines[1:]]))
    before = path.read_bytes()
    with pytest.raises(StoreError, match="line 2"), Store(path):
        pass
    with pytest.raises(StoreError, match="line 2"):
        read(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("written", [0, 1, 20])
def test_a_full_disk_is_said_and_leaves_the_file_valid(path, monkeypatch, written):
    before = path.read_bytes()

    def full(handle: int, data: memoryview) -> int:
        if len(data) < size[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size[0] = len(data)
        return os.write(handle, data[:written]) if written else full(handle, data[:-1])

    size = [0]
    with Store(path) as store:
        monkeypatch.setattr(module, "write", full)
        with pytest.raises(StoreError, match=r"No space left on device.*3 rows before are safe"):
            store.append(row("d"))
        assert path.read_bytes() == before and "d" not in store
        monkeypatch.setattr(module, "write", os.write)
        store.append(row("d"))  # room was made
    assert keys(path) == ["a", "b", "c", "d"]


def test_a_failed_sync_takes_the_row_back(path, monkeypatch):
    before = path.read_bytes()
    calls = []

    def sync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Store(path) as store:
        monkeypatch.setattr(os, "fsync", sync)
        with pytest.raises(StoreError, match="could not be written"):
            store.append(row("d"))
    assert path.read_bytes() == before


def test_every_row_is_synced(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size) or real(handle))
    with Store(path) as store:
        store.append(row("d"))
        assert synced == [path.stat().st_size]


def test_two_writers_are_refused(path):
    with Store(path), pytest.raises(StoreError, match="another bench"), Store(path):
        pass
    with Store(path):  # the first one gave it back
        pass


def test_nan_is_not_written(path):
    with Store(path) as store, pytest.raises(ValueError):
        store.append(row("d", score=float("nan")))
    assert keys(path) == ["a", "b", "c"]


def test_missing_and_unwritable(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        read(tmp_path / "results.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"), Store(tmp_path / "file" / "results.jsonl"):
        pass
