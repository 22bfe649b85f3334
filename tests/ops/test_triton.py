"""Runs `triton_cases.py` in Triton's interpreter, which has to be chosen before Triton is imported, hence in a separate
process.

The interpreter takes kernels and arguments that the compiler refuses, so all launches are compiled too, which needs no GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from laconic.ops.quantise import quantise_keys, quantise_values
from laconic.ops.triton_decode import attend_dense, attend_quantised, attend_ragged, available

CASES = Path(__file__).parents[1] / "helpers" / "triton_cases.py"
needs_triton = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton is only made for Linux")


def cases(**environment):
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter():
    cases(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_kernels_on_a_gpu():
    cases()


def test_not_for_a_cpu_unless_interpreted(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not available(torch.zeros(1))
    assert not available(torch.zeros(1, device="meta"))


class PretendGPU:
    """As much of Triton's driver as compiling needs: compute capability 8.0."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 80, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing compiles while Triton interprets")
@pytest.mark.parametrize("storage", ["dense", "ragged", "quantised"])
def test_launches_compile_for_a_gpu(storage, tmp_path, monkeypatch):
    """What is launched for bf16 and heads of 128 compiles and fits into the shared memory of the smallest card, 99 KiB."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    compiled = {}

    def launcher(self, grid):
        def launch(*args, **kwargs):
            compiled[self.__name__] = self.warmup(*args, grid=grid, **kwargs)

        return launch

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # unset, Triton 3.9 warns that its default will change
    monkeypatch.setattr(driver, "_active", PretendGPU())
    monkeypatch.setattr(JITFunction, "__getitem__", launcher)
    q, x, bias = torch.randn(1, 8, 1, 128).bfloat16(), torch.randn(1, 2, 300, 128).bfloat16(), torch.zeros(1, 1, 300)
    if storage == "dense":
        attend_dense(q, x, x, 0.1, bias=bias, softcap=30.0, chunk=64)
    elif storage == "ragged":
        attend_ragged(q, x[0, 0], x[0, 1], torch.tensor([0, 200]), torch.tensor([200, 90]), 0.1, chunk=64)
    else:
        attend_quantised(q, quantise_keys(x, 4), quantise_values(x, 2), 0.1, bias=bias, chunk=64)
    assert compiled.keys() == {"decode_quantised" if storage == "quantised" else "decode", "merge"}
    for kernel in compiled.values():
        assert kernel.asm["cubin"] and kernel.metadata.shared <= 99 << 10
