"""Keys and records."""

import json
from dataclasses import replace

import pytest

from laconic.errors import StoreError
from laconic.memory.entry import DamagedError, Entry, parsed, record, segment_key

ENTRY = Entry("abcdefgh", 10, "00ff", 1.5, 2.5, True, {"a": "ü\n\ud800"}, used=7.0)


def test_a_key_depends_on_all_that_it_is_made_of():
    parts = {"method": "m", "artifact": "a", "model": "x"}
    keys = [segment_key(b"text", **parts), segment_key(b"tex", **parts)]
    keys += [segment_key(b"text", **{**parts, name: "other"}) for name in parts]
    keys.append(segment_key(b"text", method="a", artifact="m", model="x"))  # the same values, each in another place
    assert len(set(keys)) == len(keys) and all(
        len(k) == 52 and set(k) <= set("abcdefghijklmnopqrstuvwxyz234567") for k in keys
    )
    assert segment_key(b"text", **parts) == keys[0]


def test_a_key_stays_the_same_from_version_to_version():
    assert segment_key(b"", method="", artifact="", model="") == "wweoajtewlucn46ypud3d5vvfrt35vmmt7tybj4kx6xj2tazxs2q"


def test_a_record_comes_back():
    data = record(ENTRY)
    assert parsed(data, "abcdefgh", 7.0) == ENTRY and json.loads(data)["entry"]["bytes"] == 10


def test_no_byte_of_a_record_may_change():
    data = record(ENTRY)
    for at in range(len(data)):
        for other in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data[:at], data[:at] + b" " + data[at:]):
            with pytest.raises(DamagedError):
                parsed(other, "abcdefgh", 0.0)


def test_a_record_of_another_key_or_format_is_refused(monkeypatch):
    with pytest.raises(DamagedError, match="is that of abcdefgh"):
        parsed(record(ENTRY), "other_key", 0.0)
    monkeypatch.setattr("laconic.memory.entry.FORMAT", 2)
    later = record(ENTRY)
    monkeypatch.undo()
    with pytest.raises(StoreError, match="abcdefgh has format 2"):
        parsed(later, "abcdefgh", 0.0)


def test_expiry():
    assert not ENTRY.expired(3.0)  # pinned
    entry = replace(ENTRY, pinned=False)
    assert entry.expired(2.5) and not entry.expired(2.4) and not replace(entry, expires=None).expired(1e12)
