"""The segment store: what is put can be got, until it is removed, too old, or in the way."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from helpers.memory_files import key, size, writer
from safetensors.numpy import load_file

import laconic
from laconic.errors import StoreError
from laconic.memory import folder as folder_module
from laconic.memory.store import DamagedError, SegmentStore


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.001  # two events never fall into one instant
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    return SegmentStore(tmp_path, clock=clock)


def names(store):
    return sorted(path.name for path in store.folder.iterdir() if path.suffix in (".json", ".safetensors", ".part"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_is_put_can_be_got(store):
    assert store.get(key(1)) is None and store.entries() == [] and not store.folder.exists()
    path = store.put(key(1), writer(1), facts={"title": "Bericht ü"})
    assert path == store.get(key(1)) and load_file(path)["x"].shape == (64,)
    (entry,) = store.entries()
    assert entry == store.entry(key(1)) and entry.key == key(1) and entry.facts == {"title": "Bericht ü"}
    assert entry.bytes == path.stat().st_size and entry.expires is None and not entry.pinned
    assert names(store) == [f"{key(1)}.json", f"{key(1)}.safetensors"]
    assert SegmentStore(store.folder.parents[1]).get(key(1)) == path  # another process would see it


def test_the_first_of_two_writers_wins(store):
    path = store.put(key(1), writer(1), facts={"n": "1"})
    before = path.read_bytes()

    def never(path):
        raise AssertionError

    assert store.put(key(1), never, facts={"n": "2"}, pinned=True) == path
    assert path.read_bytes() == before and store.entry(key(1)).facts == {"n": "1"} and not store.entry(key(1)).pinned


def test_namespaces_are_apart(tmp_path, store):
    other = SegmentStore(tmp_path, namespace="other")
    store.put(key(1), writer(1))
    assert other.get(key(1)) is None and other.entries() == [] and not other.remove(key(1))
    other.put(key(1), writer(2))
    assert store.get(key(1)).read_bytes() != other.get(key(1)).read_bytes()


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 65, "a.b", "-a", "a\n"])
def test_no_other_name_becomes_a_namespace(tmp_path, name):
    with pytest.raises(StoreError, match="namespace="):
        SegmentStore(tmp_path, namespace=name)


@pytest.mark.parametrize(
    "name", ["", "short", "../../etc/passwd", "a" * 81, "ABCDEFGH", "abcdefg\0", "abcdefgh/", "abcdefgh\n"]
)
def test_no_other_name_becomes_a_path(store, name):
    calls = (
        store.get, store.entry, store.remove, store.touch, store.pin,
        lambda k: store.put(k, writer()), lambda k: store.extend(k, 1),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match="key="):
            call(name)
    assert not store.folder.exists()


def test_bad_arguments_are_refused(tmp_path, store):
    with pytest.raises(StoreError, match="limit=0"):
        SegmentStore(tmp_path, limit=0)
    with pytest.raises(StoreError, match="facts: 'n'=1"):
        store.put(key(1), writer(), facts={"n": 1})
    for call in (lambda: store.pin(key(1)), lambda: store.extend(key(1), 1)):
        with pytest.raises(StoreError, match="holds no"):
            call()


def test_the_default_folder_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    assert SegmentStore().folder == tmp_path / "store" / "v1" / "default"
    assert laconic.SegmentStore is SegmentStore and laconic.StoreError is StoreError


def test_only_the_user_can_look_into_it(store):
    path = store.put(key(1), writer())
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (path, path.with_suffix(".json"))} == {0o600}


# -- time to live, pins, limit ---------------------------------------------------------------------------------------
def test_an_entry_past_its_time_is_served_no_more(store, clock):
    store.put(key(1), writer(1), ttl=10)
    clock.now += 9
    assert store.get(key(1)) is not None
    store.extend(key(1), 20)
    clock.now += 19
    assert store.get(key(1)) is not None
    clock.now += 2
    assert store.get(key(1)) is None and store.entry(key(1)) is None
    assert [e.key for e in store.entries()] == [key(1)]  # until it is collected
    store.put(key(1), writer(2))
    assert load_file(store.get(key(1)))["x"].shape == (64,) and store.entry(key(1)).expires is None


def test_an_end_can_be_taken_back(store, clock):
    store.put(key(1), writer(1), ttl=10)
    store.extend(key(1), None)
    clock.now += 1000
    assert store.get(key(1)) is not None


def test_a_pinned_entry_does_not_age(store, clock):
    store.put(key(1), writer(1), ttl=10, pinned=True)
    clock.now += 11
    assert store.get(key(1)) is not None and store.gc().expired == []
    store.pin(key(1), False)
    assert store.get(key(1)) is None and store.gc().expired == [key(1)] and store.entries() == []


def test_the_least_recently_used_go_first(tmp_path, store, clock):
    one = size(tmp_path)
    store.limit = 3 * one
    for i in range(3):
        store.put(key(i), writer(i))
    store.get(key(0))
    store.put(key(3), writer(3))
    assert {e.key for e in store.entries()} == {key(0), key(2), key(3)}
    store.pin(key(2))
    store.get(key(0))
    store.put(key(4), writer(4))
    assert {e.key for e in store.entries()} == {key(0), key(2), key(4)}


def test_what_is_past_its_time_goes_before_what_is_used(tmp_path, store, clock):
    store.limit = 2 * size(tmp_path)
    store.put(key(0), writer(0))
    store.put(key(1), writer(1), ttl=5)
    clock.now += 6
    store.put(key(2), writer(2))
    assert {e.key for e in store.entries()} == {key(0), key(2)}


def test_what_does_not_fit_is_refused_and_nothing_goes(tmp_path, store):
    one = size(tmp_path)
    store.limit = 2 * one
    store.put(key(0), writer(0), pinned=True)
    store.put(key(1), writer(1))
    with pytest.raises(StoreError, match="do not fit into limit="):
        store.put(key(2), writer(2, numbers=200))
    assert {e.key for e in store.entries()} == {key(0), key(1)} and len(names(store)) == 4
    store.pin(key(1))
    with pytest.raises(StoreError, match="pinned"):
        store.put(key(2), writer(2))


def test_what_fills_the_limit_exactly_fits(tmp_path, store):
    store.limit = size(tmp_path)
    assert store.put(key(0), writer(0)).stat().st_size == store.limit


def test_gc_brings_a_store_down_to_its_limit(tmp_path, store):
    for i in range(4):
        store.put(key(i), writer(i))
    one = store.entry(key(0)).bytes
    store.limit = 2 * one
    swept = store.gc()
    assert swept.evicted == [key(0), key(1)] and swept.bytes == 2 * one and swept.leftovers == 0
    assert store.gc().evicted == []


def test_removing(store):
    path = store.put(key(1), writer(1))
    with path.open("rb") as file:
        assert store.remove(key(1)) and not store.remove(key(1)) and store.get(key(1)) is None
        assert len(file.read()) > 8  # who has it open can read on
    assert names(store) == []


# -- what killed writers leave ---------------------------------------------------------------------------------------
def test_gc_removes_what_killed_writers_left(store):
    path = store.put(key(1), writer(1))
    left = [f".{key(2)}.0123.part", f".{key(2)}.json.77.part", f"{key(3)}.json", f"{key(4)}.safetensors"]
    for name in left:
        (store.folder / name).write_bytes(b"half")
    kept = [store.folder / name for name in ("notes.txt", "README.json", ".hidden.part")]
    for file in kept:
        file.write_text("somebody's own")
    assert store.get(key(3)) is None and store.get(key(4)) is None and len(store.entries()) == 1
    swept = store.gc()
    assert swept.leftovers == 4 and swept.bytes == 16
    assert store.get(key(1)) == path and not any((store.folder / name).exists() for name in left)
    assert all(file.exists() for file in kept)
    assert [lock.stem for lock in (store.folder / "locks").iterdir()] == [key(1)]


def test_gc_leaves_alone_what_is_being_written(store):
    def write(path):
        writer(1)(path)
        assert store.gc().leftovers == 0 and path.exists()

    store.put(key(1), write)
    assert store.get(key(1)) is not None


# -- damage ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["altered", "truncated", "longer", "empty"])
def test_a_damaged_entry_is_never_served(tmp_path, store, suffix, damage):
    store.put(key(0), writer(0))
    path = store.put(key(1), writer(1)).with_suffix(suffix)
    data = path.read_bytes()
    if damage == "altered":
        flip(path, len(data) // 2)
    else:
        path.write_bytes({"truncated": data[:-1], "longer": data + b" ", "empty": b""}[damage])
    with pytest.raises(DamagedError, match=f"truncated or was altered; remove it with `laconic store rm {key(1)}`"):
        store.get(key(1))
    (found,) = store.verify()
    assert found.key == key(1) and "altered" in found.reason
    assert store.gc().leftovers == 0 and store.get(key(0)) is not None
    store.put(key(1), writer(1))  # it is made again
    assert store.get(key(1)) is not None and store.verify() == []


def test_a_renamed_entry_is_not_served(store):
    path = store.put(key(1), writer(1))
    for suffix in (".json", ".safetensors"):
        path.with_suffix(suffix).rename(store.folder / f"{key(2)}{suffix}")
    with pytest.raises(DamagedError, match=f"is that of {key(1)}"):
        store.get(key(2))


def test_a_file_is_read_once_and_again_when_it_changed(store, monkeypatch):
    from laconic.memory import checksums

    reads = []
    digest = checksums.hashlib.file_digest
    monkeypatch.setattr(checksums.hashlib, "file_digest", lambda *args: reads.append(1) or digest(*args))
    path = store.put(key(1), writer(1))
    reads.clear()
    assert store.get(key(1)) == store.get(key(1)) and len(reads) == 1
    os.utime(path, ns=(5, 5))
    assert store.get(key(1)) and len(reads) == 2


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08" + b"\0" * 7 + b"{}      rest"])
def test_only_safetensors_files_are_stored(store, content):
    with pytest.raises(StoreError, match="no safetensors file"):
        store.put(key(1), lambda path: path.write_bytes(content))
    with pytest.raises(StoreError, match="no safetensors file"):
        store.put(key(1), lambda path: None)
    assert names(store) == [] and store.get(key(1)) is None


# -- disks that refuse -----------------------------------------------------------------------------------------------
def test_an_error_of_the_writer_is_passed_on_and_leaves_nothing(store):
    def write(path):
        path.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.put(key(1), write)
    assert names(store) == []


@pytest.mark.parametrize("at", ["write", "fsync", "replace"])
def test_a_full_disk_is_a_clear_error_and_nothing_is_lost(store, monkeypatch, at):
    store.put(key(0), writer(0))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write = full if at == "write" else writer(1)
    if at != "write":
        monkeypatch.setattr(folder_module.os, at, full)
    with pytest.raises(StoreError, match=r"cannot write into .* The disk is full: free some space"):
        store.put(key(1), write)
    monkeypatch.undo()
    assert store.get(key(0)) is not None and store.get(key(1)) is None and len(store.entries()) == 1
    store.put(key(1), writer(1))
    assert store.get(key(1)) is not None and store.gc().leftovers == 0 and len(names(store)) == 4


def test_a_folder_that_may_only_be_read(store, monkeypatch):
    path = store.put(key(0), writer(0))

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(sqlite3, "connect", only_in_memory(sqlite3.connect))
    assert store.get(key(0)) == path and [e.key for e in store.entries()] == [key(0)]
    for call in (lambda: store.put(key(1), writer(1)), lambda: store.pin(key(0)), lambda: store.remove(key(0))):
        with pytest.raises(StoreError, match="Give a folder that may be written to"):
            call()
    assert store.get(key(0)) == path


def only_in_memory(connect):
    """What SQLite does in a folder that may only be read."""

    def opened(database, **options):
        if database != ":memory:":
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return connect(database, **options)

    return opened


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "v1").write_text("a file")
    with pytest.raises(StoreError, match="cannot write into"):
        SegmentStore(tmp_path).put(key(1), writer())
