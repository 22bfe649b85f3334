"""Records of contexts: kept in files, and shared by servers that write into one folder."""

import os
import time

import pytest

from laconic.serve.front.records import STALE_S, Record, Records

ID = "ctx_" + "a" * 26
OTHER = "ctx_" + "b" * 26


def record(name=ID, **more):
    return Record(name, "t", "alice", "text", "tiny", 60.0, 1.0, 1.0, None, **more)


@pytest.fixture
def two(tmp_path):
    return Records(tmp_path, shared=True), Records(tmp_path, shared=True)


def finish(records, made, status="ready"):
    made.status = status
    records.write(made)
    made.done.set()


def test_a_context_of_another_server_is_found_and_waited_for(two):
    one, other = two
    mine = record(mine=True, status="running")
    one.write(mine)
    seen = other.get("t", ID)
    assert seen is not mine and seen.status == "running" and not seen.done.is_set()
    other.refresh()
    assert not seen.done.is_set()
    mine.tokens = {"original": 7}
    finish(one, mine)
    other.refresh()
    assert seen.done.is_set() and seen.status == "ready" and seen.tokens == {"original": 7}  # the same object
    assert other.get("t", ID) is seen and not seen.mine


def test_changes_and_removals_are_seen(two):
    one, other = two
    mine = record(mine=True)
    one.write(mine)
    finish(one, mine)
    assert [r.name for r in other.of("t")] == [None]
    mine.name = "minutes"
    one.write(mine)
    os.utime(one._folder / "t" / f"{ID}.json", ns=(1, mine.stamp + 1))  # a clock too coarse to tell the two writes apart
    assert other.get("t", ID).name == "minutes" and [r.name for r in other.of("t")] == ["minutes"]
    one.write(record(OTHER, mine=True, status="ready"))
    assert [r.id for r in other.of("t")] == [ID, OTHER]
    one.remove(mine)
    assert other.get("t", ID) is None and [r.id for r in other.of("t")] == [OTHER]


def test_what_this_server_makes_is_its_own_word(two):
    """A file that another server has touched meanwhile does not change it."""
    one, _ = two
    mine = record(mine=True, status="queued")
    one.write(mine)
    mine.status = "running"  # not on the disk
    os.utime(one._folder / "t" / f"{ID}.json", ns=(1, mine.stamp + 1))
    assert one.get("t", ID) is mine and mine.status == "running" and not mine.done.is_set()


def test_a_server_that_starts_leaves_what_others_make_unless_it_is_stale(tmp_path):
    one = Records(tmp_path, shared=True)
    one.write(record(mine=True, status="running"))
    assert Records(tmp_path, shared=True).get("t", ID).status == "running"
    old = time.time() - STALE_S - 1
    os.utime(tmp_path / "t" / f"{ID}.json", (old, old))
    late = Records(tmp_path, shared=True).get("t", ID)
    assert late.status == "failed" and late.error["code"] == "interrupted" and late.done.is_set()


def test_alone_an_unfinished_context_was_interrupted(tmp_path):
    Records(tmp_path).write(record(status="running"))
    known = Records(tmp_path).get("t", ID)
    assert known.status == "failed" and known.done.is_set()


def test_a_damaged_file_is_set_aside(tmp_path):
    Records(tmp_path).write(record())
    (tmp_path / "t" / f"{ID}.json").write_text("{")
    assert Records(tmp_path).get("t", ID) is None
    assert (tmp_path / "t" / f"{ID}.damaged").exists()
