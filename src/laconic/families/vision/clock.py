"""How long a vision encoder ran: `generate()` encodes images before it calls the model, so the model's clock misses it."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision.base import vision_family_of


class _OfThread(threading.local):
    """Encoders run in the thread that called the model, and their time is that of its call."""

    seconds = began = 0.0


class EncoderClock:
    """Adds up the seconds of the vision encoder in each thread while its hooks (`handles`) are on.

    Raises:
        UnsupportedModelError: the model is of no known vision family.
    """

    def __init__(self, model: PreTrainedModel):
        self._here = _OfThread()
        tower = vision_family_of(model).tower(model)
        self.handles: list[RemovableHandle] = [
            tower.register_forward_pre_hook(self._start),
            tower.register_forward_hook(self._stop),
        ]

    @property
    def seconds(self) -> float:
        """The seconds so far, in this thread."""
        return self._here.seconds

    def take(self) -> float:
        """The seconds so far, in this thread, which starts again from zero."""
        seconds, self._here.seconds = self._here.seconds, 0.0
        return seconds

    def _start(self, module: nn.Module, args: Any) -> None:
        self._here.began = time.perf_counter()

    def _stop(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._here.seconds += time.perf_counter() - self._here.began


def encoder_clock(model: PreTrainedModel) -> EncoderClock | None:
    """A clock for a model's vision encoder; None if it has none that laconic knows."""
    try:
        return EncoderClock(model)
    except UnsupportedModelError:
        return None
