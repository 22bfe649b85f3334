"""Peak memory over a piece of work."""

from __future__ import annotations

import threading
from pathlib import Path

import psutil
import torch

INTERVAL = 0.01
"""Seconds between two looks at the process where the system keeps no high-water mark that can be reset."""


class Memory:
    """Peak memory since the start: of the GPU's allocator, or of the whole process on a CPU, model included.

    What earlier work left with the allocator counts too, so small differences mean nothing. There is one high-water
    mark in a process: a second `Memory` resets that of the first.

    Attributes:
        kind: what is measured. ``cuda_allocated``; ``process_peak`` where Linux lets the high-water mark be reset;
            ``process_sampled`` elsewhere inside a ``with`` block, where the resident size is read every 10 ms;
            ``process_now`` elsewhere without one, the resident size when `peak` is called.
    """

    def __init__(self) -> None:
        self.kind = "cuda_allocated" if torch.cuda.is_available() else "process_peak"
        self._stop, self._sampled = threading.Event(), 0
        if self.kind == "cuda_allocated":
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.kind = "process_now"

    def __enter__(self) -> Memory:
        if self.kind == "process_now":
            self.kind = "process_sampled"
            threading.Thread(target=self._sample, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(INTERVAL):
            self._sampled = max(self._sampled, process.memory_info().rss)

    def peak(self) -> int:
        """Bytes at the peak so far."""
        if self.kind == "cuda_allocated":
            return int(torch.cuda.max_memory_allocated())
        if self.kind == "process_peak":
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
            self.kind = "process_now"
        return max(self._sampled, int(psutil.Process().memory_info().rss))
