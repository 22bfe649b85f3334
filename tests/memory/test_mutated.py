"""2,000 mutated files: each is refused with a clear error, by the store and by whoever opens it without one."""

import random

import pytest
from helpers.memory_files import key, writer

from laconic.memory.store import DamagedError, SegmentStore, StoreError


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with flipped bits, lost, doubled or foreign stretches, or a header that lies about its length."""
    at, n = rng.randrange(len(data)), rng.choice([1, 2, 8, 64])
    kinds = (
        lambda: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
        lambda: data[:at],
        lambda: data[:at] + data[at + n :],
        lambda: data[:at] + data[at : at + n] + data[at:],
        lambda: data[:at] + rng.randbytes(n) + data[at:],
        lambda: data + rng.randbytes(n),
        lambda: rng.randrange(2**63).to_bytes(8, "little") + data[8:],
        lambda: rng.randbytes(len(data)),
    )
    return rng.choice(kinds)()


def test_no_mutated_file_is_served(tmp_path):
    store, rng = SegmentStore(tmp_path), random.Random(0)
    path = store.put(key(1), writer(1))
    whole = {file: file.read_bytes() for file in (path, path.with_suffix(".json"))}
    for i in range(1000):
        file = rng.choice(list(whole))
        broken = mutated(whole[file], rng)
        if broken == whole[file]:
            continue
        file.write_bytes(broken)
        with pytest.raises(DamagedError, match="laconic store rm"):
            store.get(key(1))
        if i % 50 == 0:
            assert [damage.key for damage in store.verify()] == [key(1)]
        file.write_bytes(whole[file])
        assert store.get(key(1)) == path


def test_what_is_stored_is_a_file_that_can_be_opened_or_is_refused(tmp_path):
    from safetensors.numpy import load_file

    store, rng, refused = SegmentStore(tmp_path), random.Random(1), 0
    writer(1)(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for _ in range(1000):
        broken = mutated(whole, rng)
        try:
            path = store.put(key(1), lambda path, broken=broken: path.write_bytes(broken))
        except StoreError as error:
            refused += 1
            assert "no safetensors file" in str(error) and store.get(key(1)) is None
            continue
        assert path.read_bytes() == broken and isinstance(load_file(path), dict)
        store.remove(key(1))
    assert 300 < refused < 1000
