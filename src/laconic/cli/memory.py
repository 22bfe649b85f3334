"""Peak memory while a block runs: the allocator's figure on a GPU, the process's resident size on a CPU."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil
import torch

INTERVAL = 0.01


class PeakMemory:
    """Context manager; afterwards `peak` is in bytes and `kind` says what was measured.

    On a CPU it is the resident size of the whole process, model included, sampled every 10 ms; what an earlier run left with
    the allocator counts too, so small differences mean nothing.
    """

    def __init__(self, device: torch.device):
        self.cuda = device if device.type == "cuda" else None
        self.kind = "cuda allocated" if self.cuda else "process resident"
        self.peak = 0
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.cuda)
        else:
            self._process = psutil.Process()
            self.peak = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.cuda:
            self.peak = torch.cuda.max_memory_allocated(self.cuda)
            return
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, self._process.memory_info().rss)
