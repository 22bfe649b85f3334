"""Tensors that grow along one dimension, with spare room, so that adding a block costs the block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch


class Growing(Mapping[str, torch.Tensor]):
    """Named tensors [B, ., n, ...] that grow along dimension 2, each at its own pace; reading one returns what is stored."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]):
        self._buffers = dict(tensors)
        self._used = {name: x.shape[2] for name, x in tensors.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._buffers[name][:, :, : self._used[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._buffers)

    def __len__(self) -> int:
        return len(self._buffers)

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return sum(self[name].nbytes for name in self)

    def buffers(self) -> Iterator[torch.Tensor]:
        """All tensors with their spare room."""
        return iter(self._buffers.values())

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Add a tensor under a new name."""
        self._buffers[name], self._used[name] = tensor, tensor.shape[2]

    def append(self, blocks: Mapping[str, torch.Tensor]) -> None:
        """Append `blocks` to the tensors of the same names; when spare room runs out, a sixteenth more is allocated."""
        for name, block in blocks.items():
            buffer, n = self._buffers[name], self._used[name]
            stop = n + block.shape[2]
            if stop > buffer.shape[2]:
                self._buffers[name] = buffer.new_empty(*buffer.shape[:2], stop + max(4, stop // 16), *buffer.shape[3:])
                self._buffers[name][:, :, :n] = buffer[:, :, :n]
            self._buffers[name][:, :, n:stop] = block
            self._used[name] = stop

    def mapped(self, f: Callable[[torch.Tensor], torch.Tensor]) -> Growing:
        """A copy with `f` applied to every tensor (batch first)."""
        copied = Growing({name: f(buffer) for name, buffer in self._buffers.items()})
        copied._used = dict(self._used)
        return copied
