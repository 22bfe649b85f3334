"""Processes that work on one store at once, and writers that are killed. A script without torch, so that forking is cheap:

``python -m helpers.store_processes kill | crash | crowd FOLDER ROUNDS SEED`` prints what it found as JSON.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from helpers.memory_files import key, writer
from laconic.memory.store import SegmentStore

NUMBERS = 50_000


def forked(work: Callable[[], None]) -> int:
    """The id of a child that does `work` and ends with status 0, or 1 after an exception."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def content(folder: Path, seed: int) -> bytes:
    """What `writer` writes."""
    path = folder / f"expected-{os.getpid()}"
    writer(seed, NUMBERS)(path)
    data = path.read_bytes()
    path.unlink()
    return data


def write_on(folder: Path, journal: int, first: int) -> None:
    """Put, renew, pin and remove entries without end; every finished act is a line of the journal."""
    store = SegmentStore(folder)
    for i in range(first, first + 10_000):
        store.put(key(i), writer(i, NUMBERS), ttl=-1)  # past its time at once
        store.put(key(i), writer(i, NUMBERS))  # so it is replaced
        os.write(journal, f"put {i}\n".encode())
        if i % 3 == 0:
            store.pin(key(i))
            os.write(journal, f"pin {i}\n".encode())
        if i % 5 == 0:
            os.write(journal, f"removing {i}\n".encode())
            store.remove(key(i))
            os.write(journal, f"removed {i}\n".encode())


def problems(folder: Path, lines: list[str]) -> list[str]:
    """How a store differs from what its killed writer had reported."""
    store = SegmentStore(folder)
    found = [f"damaged: {damage.reason}" for damage in store.verify()]
    done: dict[int, set[str]] = {}
    for act, i in (line.split() for line in lines):
        done.setdefault(int(i), set()).add(act)
    for i, acts in done.items():
        path = store.get(key(i))
        if "removed" in acts:
            found += [f"{i} was removed and is there"] if path else []
        elif path is None:
            found += [] if "removing" in acts else [f"{i} was put and is lost"]
        elif path.read_bytes() != content(folder, i):
            found.append(f"{i} has other bytes")
        elif "pin" in acts and not store.entry(key(i)).pinned:
            found.append(f"{i} was pinned and is not")
    store.gc()
    left = [path.name for path in store.folder.glob("*.part")]
    listed = {entry.key for entry in store.entries()}
    files = {path.stem for path in store.folder.glob("*.safetensors")}
    return found + [f"left behind: {name}" for name in left] + [f"listed or not: {k}" for k in sorted(listed ^ files)]


def kill(folder: Path, rounds: int, seed: int) -> dict[str, object]:
    """SIGKILL for a writer at random moments."""
    rng, found, acts, parts = random.Random(seed), [], 0, 0
    for turn in range(rounds):
        read, journal = os.pipe()
        child = forked(lambda first=turn * 10_000, journal=journal: write_on(folder, journal, first))
        os.close(journal)
        with os.fdopen(read) as lines:
            reported = [lines.readline() for _ in range(rng.randrange(1, 6))]
            time.sleep(rng.uniform(0, 0.02))  # about as long as one act takes
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            reported += lines.read().splitlines()
        acts += len(reported)
        parts += len(list(SegmentStore(folder).folder.glob("*.part")))
        found += problems(folder, reported)
        for entry in SegmentStore(folder).entries():
            SegmentStore(folder).remove(entry.key)
    return {"problems": found, "acts": acts, "parts": parts}


def crash(folder: Path, rounds: int, seed: int) -> dict[str, object]:
    """A writer that ends at its n-th system call, for n = 1, 2 ... until it has put, renewed, pinned and removed."""
    found, n = [], 0
    while n < rounds:
        n += 1
        read, journal = os.pipe()

        def work(n: int = n, journal: int = journal) -> None:
            left = [n]

            def counted(call: Callable) -> Callable:
                def maybe(*args: object, **options: object) -> object:
                    left[0] -= 1
                    if left[0] == 0:
                        os._exit(9)
                    return call(*args, **options)

                return maybe

            for name in ("fsync", "replace", "utime", "unlink", "mkdir"):
                setattr(os, name, counted(getattr(os, name)))
            store = SegmentStore(folder)
            store.put(key(0), writer(0, NUMBERS), ttl=-1)
            store.put(key(0), writer(0, NUMBERS))
            os.write(journal, b"put 0\n")
            store.pin(key(0))
            os.write(journal, b"pin 0\nremoving 0\n")
            store.remove(key(0))
            os.write(journal, b"removed 0\n")

        status = os.waitpid(forked(work), 0)[1]
        os.close(journal)
        with os.fdopen(read) as lines:
            found += [f"at call {n}: {problem}" for problem in problems(folder, lines.read().splitlines())]
        SegmentStore(folder).remove(key(0))
        if status == 0:
            break
    return {"problems": found, "calls": n}


def crowd(folder: Path, rounds: int, seed: int) -> dict[str, object]:
    """Six processes: each puts the same keys and keys of its own, while one of them cleans up."""
    counts = folder / "written"
    counts.mkdir(parents=True)

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        store = SegmentStore(folder, limit=40 * 4 * NUMBERS)
        for i in range(rounds):

            def count(path: Path, i: int = i) -> None:
                (counts / f"{i}-{number}").touch()
                time.sleep(0.005)
                writer(i, NUMBERS)(path)

            path = store.put(key(f"same {i}"), count, pinned=True)
            assert path.read_bytes() == content(folder, i)
            own = key(f"{number} {i}")
            store.put(own, writer(i, NUMBERS))
            assert rng.random() < 0.7 or (store.remove(own), True)
            if number == 0:
                store.gc()
            assert rng.random() < 0.8 or store.entries()

    children = [forked(lambda number=number: work(number)) for number in range(6)]
    failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    store = SegmentStore(folder, limit=40 * 4 * NUMBERS)
    found = [f"{failed} processes failed"] * (failed > 0) + [damage.reason for damage in store.verify()]
    written = [len(list(counts.glob(f"{i}-*"))) for i in range(rounds)]
    found += [f"same {i} was written {n} times" for i, n in enumerate(written) if n != 1]
    store.gc()
    held = sum(entry.bytes for entry in store.entries())
    found += [f"{held} bytes"] * (held > store.limit)
    return {"problems": found, "entries": len(store.entries())}


if __name__ == "__main__":
    what, folder, rounds, seed = sys.argv[1:]
    print(json.dumps({"kill": kill, "crash": crash, "crowd": crowd}[what](Path(folder), int(rounds), int(seed))))
