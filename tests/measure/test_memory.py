"""Peak memory is seen after it was freed."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.measure.memory import Memory

SIZE = 60 * 2**20


def use(seconds: float = 0.0) -> None:
    """Hold 60 MiB for a moment."""
    block = torch.ones(SIZE // 4)
    torch.ones(1).sum()
    if seconds:
        import time

        time.sleep(seconds)
    del block


@pytest.fixture
def no_high_water_mark(monkeypatch):
    """A system that does not let it be reset."""

    def refused(self, *args, **kwargs):
        raise PermissionError(str(self))

    monkeypatch.setattr(Path, "write_text", refused)


def test_the_high_water_mark_is_reset():
    """In a fresh process: in one that runs other tests, their garbage is freed meanwhile and hides the block."""
    program = f"""
import torch
from laconic.measure.memory import Memory
memory = Memory()
before = memory.peak()
block = torch.ones({SIZE // 4})
del block
if memory.kind == "process_peak":
    assert memory.peak() >= before + {SIZE * 0.8}
    assert Memory().peak() <= before + {SIZE * 0.5}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator keeps its own")
def test_elsewhere_the_process_is_sampled_in_a_block(no_high_water_mark):
    gc.collect()  # garbage of other tests, freed meanwhile, would hide the block
    with Memory() as memory:
        before = memory.peak()
        use(seconds=0.2)
        assert memory.kind == "process_sampled" and memory.peak() >= before + SIZE * 0.8


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator keeps its own")
def test_elsewhere_without_a_block_it_is_the_size_now(no_high_water_mark):
    memory = Memory()
    before = memory.peak()
    use()
    assert memory.kind == "process_now" and memory.peak() < before + SIZE * 0.5
