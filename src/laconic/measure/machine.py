"""Where a row was measured: versions and hardware, without names or paths."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

import laconic

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def versions() -> dict[str, str]:
    """Versions that a result depends on. The testbed's haystacks follow Python's minor version."""
    found = {"laconic": laconic.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # pragma: no cover
            found[name] = "unknown"
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, memory, accelerator and threads; no host name, no user, no path."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.system(),
        "cpu": cpu_model(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }


def cpu_model(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system reports it."""
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Memory:
    """Peak memory over a piece of work: of the GPU's allocator, or of the whole process on a CPU.

    ``kind`` names the measure: ``cuda_allocated``; ``process_peak`` where Linux allows the high-water mark to be reset;
    otherwise ``process_now``, the resident size at the end.
    """

    def __init__(self) -> None:
        self.kind = "cuda_allocated" if torch.cuda.is_available() else "process_peak"
        if self.kind == "cuda_allocated":
            torch.cuda.reset_peak_memory_stats()
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                self.kind = "process_now"

    def peak(self) -> int:
        """Bytes at the peak since the start."""
        if self.kind == "cuda_allocated":
            return int(torch.cuda.max_memory_allocated())
        if self.kind == "process_peak":
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
            self.kind = "process_now"
        return int(psutil.Process().memory_info().rss)
