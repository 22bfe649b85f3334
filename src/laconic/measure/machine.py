"""Where a row was measured: versions and hardware, without names or paths."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

import laconic
from laconic.measure.memory import Memory as Memory

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
