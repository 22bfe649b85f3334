"""`laconic store`."""

import re

import pytest
from helpers.memory_files import key, writer

from laconic.memory.store import SegmentStore


@pytest.fixture
def store(tmp_path):
    store = SegmentStore(tmp_path)
    for i in range(3):
        store.put(key(i), writer(i), facts={"title": f"[b]note {i}\x1b"}, ttl=-1 if i == 2 else None)
    return store


@pytest.fixture
def options(tmp_path):
    return ["--folder", tmp_path]


def test_listing(laconic, store, options, monkeypatch):
    store.touch(key(0))
    found = laconic.json("store", "ls", *options)
    assert [e["key"] for e in found] == [key(0), key(2), key(1)] and found[0]["facts"] == {"title": "[b]note 0\x1b"}
    store.pin(key(1))
    store.extend(key(0), 3600)
    monkeypatch.setenv("COLUMNS", "120")
    shown = laconic("store", "ls", *options).stdout
    assert all(key(i)[:12] in shown and f"title=[b]note {i}�" in shown for i in range(3))
    assert "pinned" in shown and "60 min" in shown and "over" in shown and "3 stored" in shown and str(store.folder) in shown


def test_an_empty_store(laconic, tmp_path, options):
    assert laconic.json("store", "ls", *options) == []
    assert "0 stored" in laconic("store", "ls", *options).stdout
    assert laconic.json("store", "gc", *options)["bytes"] == 0 and laconic.json("store", "verify", *options) == []
    assert list(tmp_path.iterdir()) == []


def test_collecting(laconic, store, options):
    one = store.entry(key(0)).bytes
    (store.folder / f".{key(5)}.1.part").write_bytes(b"half")
    found = laconic.json("store", "gc", *options, "--limit", f"{one}B")
    assert found == {"expired": [key(2)], "evicted": [key(0)], "leftovers": 1, "bytes": 2 * one + 4}
    assert "0 past their time, 0 over the limit, 0 unfinished files: 0 B freed" in laconic("store", "gc", *options).stdout
    assert "'much' is no number of bytes" in laconic.bad(2, "store", "gc", *options, "--limit", "much")


def test_verifying_and_removing(laconic, store, options):
    assert "0 damaged, 3 as they were written" in laconic("store", "verify", *options).stdout
    path = store.folder / f"{key(1)}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = laconic("store", "verify", *options)
    assert result.exit_code == 1 and key(1) in result.stdout and "1 damaged" in result.stdout
    assert laconic.json("store", "rm", *options, key(1)) == {"removed": [key(1)]}
    path = store.folder / f"{key(0)}.json"
    path.write_bytes(b"")
    assert [d["key"] for d in laconic.json("store", "verify", "--remove", *options)] == [key(0)]
    assert store.all_keys() == [key(2)] and store.verify() == []


def test_pinning_by_the_beginning_of_a_key(laconic, store, options):
    assert f"pinned {key(0)}" in laconic("store", "pin", *options, key(0)[:9]).stdout and store.entry(key(0)).pinned
    assert laconic.json("store", "pin", "--undo", *options, key(0)) == {"unpinned": [key(0)]}
    assert not store.entry(key(0)).pinned
    for what in ("pin", "rm"):
        assert "no key begins with 'zzz'" in laconic.bad(2, "store", what, *options, "zzz")
        assert "3 keys begin with ''" in laconic.bad(2, "store", what, *options, "")


def test_namespaces(laconic, store, options):
    assert laconic.json("store", "ls", *options, "--namespace", "other") == []
    assert "namespace='..'" in laconic.bad(1, "store", "ls", *options, "--namespace", "..")


def test_run_takes_a_context_from_the_store(laconic, model, context, tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    asked = ["run", "--model", model, "--method", "knorm", "--keep", 0.25, "--context", context, "--max-new-tokens", 4]
    asked += ["--later", "-q", "Wo?"]
    first, again = (laconic.json(*asked, "--store") for _ in range(2))
    assert (first["stored"], again["stored"]) == (False, True) and first["answers"][0]["answer"] == again["answers"][0][
        "answer"
    ]
    assert first["kv_bytes"] == again["kv_bytes"] and laconic.json(*asked)["answer"] == again["answers"][0]["answer"]
    assert re.search(r"taken from the store in \d+\.?\d* m?s, ", laconic(*asked, "-q", "Wer?", "--store").stdout)
    (entry,) = laconic.json("store", "ls")
    assert entry["facts"]["methods"] == "knorm:keep=0.25"


@pytest.mark.parametrize("options", [["--compare", "--later"], ["--later", "--cache", "x"], []])
def test_run_refuses_what_does_not_go_with_a_store(laconic, model, context, options):
    message = laconic.bad(2, "run", "--model", model, "--context", context, "-q", "Wo?", "--store", *options)
    assert "--store goes with --later, and without --cache, --memory and --compare" in message
