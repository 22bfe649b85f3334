import json
import subprocess
import sys

from laconic.measure.machine import cpu_model, machine


def test_the_machine_has_no_names_or_paths():
    import getpass
    import socket

    said = json.dumps(machine())
    assert socket.gethostname() not in said and "/" not in machine()["cpu"]
    assert getpass.getuser() not in said
    assert cpu_model()


def test_peak_memory_sees_what_was_freed():
    # in a fresh process: in one that runs other tests, their garbage is freed meanwhile and hides the block
    program = """
import torch
from laconic.measure.memory import Memory
memory = Memory()
before = memory.peak()
block = torch.ones(60 * 2**20 // 4)
del block
if memory.kind != "process_now":
    assert memory.peak() >= before + 50 * 2**20
    assert Memory().peak() <= before + 30 * 2**20
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
