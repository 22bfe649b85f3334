"""What methods do themselves, beside what they have the model do: how long it takes, and its FLOPs."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from laconic.measure.operations import OperationCounter

if TYPE_CHECKING:
    from laconic.measure.figures import Figures


class Work:
    """A stretch of a method's own work, as a context manager: what it took is added to the figures when it is over.

    Args:
        figures: of the cache that it is done for. `prefill`: whether it is done for the prompt.
    """

    def __init__(self, figures: Figures, prefill: bool):
        self.figures, self.prefill = figures, prefill
        self._counter = OperationCounter() if figures.counting else None

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        if self._counter is not None:
            self._counter.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._counter is not None:
            self._counter.__exit__(kind, error, trace)
            self.figures.worked(self._counter.flops, self.prefill)
        self.figures.compress_seconds += time.perf_counter() - self._began
