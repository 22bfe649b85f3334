"""Peak memory is seen after it was freed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.measure.memory import Memory

SIZE = 60 * 2**20


def use() -> None:
    """Hold 60 MiB for a moment."""
    block = torch.ones(SIZE // 4)
    torch.ones(1).sum()
    del block


@pytest.fixture
def no_high_water_mark(monkeypatch):
    """A system that does not let it be reset."""

    def refused(self, *args, **kwargs):
        raise PermissionError(str(self))

    monkeypatch.setattr(Path, "write_text", refused)


def alone(program: str) -> None:
    """Run `program` in a fresh process: in one that runs other tests, what they leave to the allocator hides the block."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_high_water_mark_is_reset():
    alone(f"""
import torch
from laconic.measure.memory import Memory
memory = Memory()
before = memory.peak()
block = torch.ones({SIZE // 4})
del block
if memory.kind == "process_peak":
    assert memory.peak() >= before + {SIZE * 0.8}
    assert Memory().peak() <= before + {SIZE * 0.5}
""")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator keeps its own")
def test_elsewhere_the_process_is_sampled_in_a_block():
    alone(f"""
import time
from pathlib import Path
import torch
from laconic.measure.memory import Memory
def refused(*args, **kwargs):
    raise PermissionError
Path.write_text = refused
with Memory() as memory:
    before = memory.peak()
    block = torch.ones({SIZE // 4})
    time.sleep(1)
    del block
    assert memory.kind == "process_sampled" and memory.peak() >= before + {SIZE * 0.8}
""")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator keeps its own")
def test_elsewhere_without_a_block_it_is_the_size_now(no_high_water_mark):
    memory = Memory()
    before = memory.peak()
    use()
    assert memory.kind == "process_now" and memory.peak() < before + SIZE * 0.5
