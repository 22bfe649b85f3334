"""A prefix whose numbers are parameters, and the layout in which peft stores one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from laconic.memory.prefix import Prefix


class TrainedPrefix(nn.Module):
    """Keys and values [L, Hkv, p, D] of every layer. The first `frozen` entries stay as they are: attention sinks there.

    Args:
        keys, values: where training begins; `values` None: zeros, to be loaded.
    """

    def __init__(self, keys: Tensor, values: Tensor | None = None, frozen: int = 1):
        super().__init__()
        values = torch.zeros_like(keys) if values is None else values
        self.keys = nn.Parameter(keys[:, :, frozen:].float().clone())
        self.values = nn.Parameter(values[:, :, frozen:].float().clone())
        self.first_keys: Tensor
        self.first_values: Tensor
        self.register_buffer("first_keys", keys[:, :, :frozen].float().clone())
        self.register_buffer("first_values", values[:, :, :frozen].float().clone())

    @classmethod
    def of(cls, prefix: Prefix, frozen: int = 1) -> TrainedPrefix:
        """Begin with the first row of `prefix`."""
        keys, values = (torch.stack([x[0] for x in xs]) for xs in (prefix.keys, prefix.values))
        return cls(keys, values, frozen)

    def prefix(self, rows: int = 1) -> Prefix:
        """The entries, at the positions 0 to p - 1, in `rows` equal rows. A question begins at p."""
        keys = torch.cat([self.first_keys, self.keys], 2)[:, None].expand(-1, rows, -1, -1, -1)
        values = torch.cat([self.first_values, self.values], 2)[:, None].expand(-1, rows, -1, -1, -1)
        return Prefix(tuple(keys), tuple(values), keys.shape[3])


def to_peft(prefix: Prefix) -> Tensor:
    """peft's `prompt_embeddings` of a prefix of one row, [p, L * 2 * Hkv * D]: by entry, then layer, key before value, then
    head and channel."""
    layers = [torch.stack([k[0], v[0]]) for k, v in zip(prefix.keys, prefix.values, strict=True)]  # [2, Hkv, p, D]
    return torch.stack(layers).permute(3, 0, 1, 2, 4).flatten(1)


def from_peft(table: Tensor, layers: int, heads: int) -> Prefix:
    """The prefix in peft's `prompt_embeddings` [p, L * 2 * Hkv * D], of one row.

    Raises:
        ValueError: its width does not divide so.
    """
    if table.shape[1] % (layers * 2 * heads):
        raise ValueError(
            f"a table of width {table.shape[1]} does not hold {layers} layers of {heads} KV heads; give its own."
        )
    split = table.view(len(table), layers, 2, heads, -1).permute(1, 2, 3, 0, 4)[:, :, None]  # [L, 2, 1, Hkv, p, D]
    return Prefix(tuple(split[:, 0]), tuple(split[:, 1]), len(table))
