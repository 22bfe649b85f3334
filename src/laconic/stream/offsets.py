"""M-RoPE: where text goes on after an image, as a property of the cache.

An image of r x c tokens takes max(r, c) positions, so text after it goes on at fewer positions than tokens were seen.
transformers keeps the difference in one attribute of the model, that of the prompt it read last, and counts every later
position from it. Here the cache keeps its own, in a layer's state: it follows forks and batch changes and is saved, and
several caches take turns on one model. It is counted from the last token, as `generate()` does: after a video whose frames
are many positions apart (Qwen2.5-VL), text goes on before the position of the last frame, and transformers' own difference,
from the largest position of all, is another.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from laconic.cache.cache import CompressedCache
from laconic.seams import Host, Order, Seam
from laconic.step import Step

OFFSET = "offset"
ATTRIBUTE = "rope_deltas"
"""Of transformers' M-RoPE models: position that follows the prompt less its number of tokens, [B, 1]."""


class OffsetSeam(Seam):
    """Notes the offset of every prompt, and gives later passes the positions that follow from it. It does nothing for models
    whose positions are the numbers of their tokens."""

    order = Order.OFFSETS

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        super().__init__(host, methods)
        core = host.model.base_model
        self._core = core if hasattr(core, ATTRIBUTE) else None

    def install(self, restore: ExitStack) -> None:
        if self._core is not None:
            restore.callback(setattr, self._core, ATTRIBUTE, getattr(self._core, ATTRIBUTE))

    def adopt(self, cache: CompressedCache) -> None:
        """The model must not meet the offset of another prompt, whose batch may have another size, too."""
        if self._core is not None and cache.seen and (offset := _state(cache).get(OFFSET)) is not None:
            setattr(self._core, ATTRIBUTE, offset[:, None])

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        """The offset of a first pass follows from its positions, and so does that of a later one that brings an image; of
        text, positions follow from the offset: `generate()` has counted them from the prompt that was read last."""
        call = self.host.running.call
        if self._core is None or call is None:
            return kwargs
        state, positions = _state(call.cache), step.position_ids
        offset = state.get(OFFSET)
        if offset is None or not _text(positions):
            rows = positions[-3:] if positions.ndim == 3 else positions[None]
            real = torch.tensor(step.real, device=positions.device)
            state[OFFSET] = (rows[..., -1].amax(0) + 1).expand(len(real)) - real
            return kwargs
        step.position_ids = (_counted(kwargs.get("attention_mask"), step) + offset[:, None]).expand(3, len(offset), -1)
        return kwargs | {"position_ids": step.position_ids}


def _state(cache: CompressedCache) -> dict[str, Tensor]:
    return next(cache.compressed()).state


def _text(positions: Tensor) -> bool:
    """Whether the tokens of a pass have one position each: the rows for time, height and width agree."""
    return positions.ndim < 3 or bool((positions[-3:] == positions[-1:]).all())


def _counted(mask: Tensor | None, step: Step) -> Tensor:
    """The numbers of a pass's tokens among the real ones, [B or 1, n]."""
    if mask is not None and mask.shape[1] == step.start + step.length:
        return (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -step.length :]
    return torch.arange(step.start, step.start + step.length, device=step.position_ids.device)[None]
