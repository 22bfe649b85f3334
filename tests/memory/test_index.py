"""The index says what the records say, whatever has become of its own file."""

import random
import sqlite3

import pytest
from helpers.memory_files import key, writer

from laconic.memory import index as module
from laconic.memory.index import FILE, Index
from laconic.memory.store import SegmentStore


@pytest.fixture
def store(tmp_path):
    store = SegmentStore(tmp_path)
    for i in range(3):
        store.put(key(i), writer(i), facts={"n": str(i)})
    store.entries()
    return store


def listed(store):
    return {e.key: e.facts["n"] for e in store.entries()}


ALL = {key(i): str(i) for i in range(3)}


def count_reads(monkeypatch):
    reads = []
    read = module._read
    monkeypatch.setattr(module, "_read", lambda path: reads.append(path.stem) or read(path))
    return reads


def test_a_record_is_read_once(store, monkeypatch):
    reads = count_reads(monkeypatch)
    assert listed(store) == ALL and reads == []
    store.pin(key(1))
    assert {e.key: e.pinned for e in store.entries()} == {key(0): False, key(1): True, key(2): False} and reads == [key(1)]


def test_what_came_and_went_meanwhile_is_seen(store):
    other = Index(store.folder)
    store.remove(key(0))
    store.put(key(9), writer(9), facts={"n": "9"})
    assert {e.key for e in other.entries()} == {key(1), key(2), key(9)}
    store.folder.joinpath(f"{key(1)}.safetensors").unlink()  # by hand
    assert {e.key for e in other.entries()} == {key(2), key(9)}


def test_a_deleted_index_is_made_again(store, monkeypatch):
    (store.folder / FILE).unlink()
    assert listed(store) == ALL and (store.folder / FILE).exists()
    reads = count_reads(monkeypatch)
    store.rebuild()
    assert sorted(reads) == sorted(ALL) and listed(store) == ALL


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100, b"SQLite format 3\0", None])
def test_a_damaged_index_is_made_again(store, content, monkeypatch):
    file = store.folder / FILE
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2] if content is None else content)
    assert listed(store) == ALL
    assert listed(store) == ALL
    reads = count_reads(monkeypatch)
    assert listed(store) == ALL and reads == []  # it is an index again


def test_an_index_with_altered_bytes_answers_as_the_records_do(store):
    file, rng = store.folder / FILE, random.Random(0)
    whole = file.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3, 50])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        assert listed(store) == ALL


@pytest.mark.parametrize(
    "statement", ["DROP TABLE records", "ALTER TABLE records RENAME record TO other", "UPDATE records SET record = 7"]
)
def test_another_schema_is_made_anew(store, statement):
    with sqlite3.connect(store.folder / FILE) as db:
        db.execute(statement)
    db.close()
    assert listed(store) == ALL


def test_a_locked_index_does_not_hinder_a_listing(store, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout=0: connect(path, timeout=0.01))
    with connect(store.folder / FILE) as db:
        db.execute("BEGIN EXCLUSIVE")
        store.pin(key(1))
        assert listed(store) == ALL
    db.close()
