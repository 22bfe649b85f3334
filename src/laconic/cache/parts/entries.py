"""The entries of several parts as one rectangle."""

from __future__ import annotations

import torch

from laconic.cache.parts.base import FILL, Entries


def joined(pieces: list[Entries]) -> Entries:
    """All entries, piece after piece; a column that one piece has gets its default in the others."""
    names = {name for piece in pieces for name in piece[2]}
    merged = {name: torch.cat([column(name, piece) for piece in pieces], -1) for name in names}
    return torch.cat([p[0] for p in pieces], 2), torch.cat([p[1] for p in pieces], 2), merged


def filler_first(piece: Entries) -> Entries:
    """Move filler of short rows to the front: scores are pooled over neighbours, and what a row's neighbours are must not
    depend on the other rows of the batch."""
    keys, values, columns = piece
    if "valid" not in columns:
        return piece
    columns = {**columns, "index": column("index", piece)}
    order = columns["valid"].int().argsort(dim=-1, stable=True)

    def ordered(x: torch.Tensor) -> torch.Tensor:
        return x.gather(2, order.view(*order.shape, *[1] * (x.ndim - 3)).expand(*order.shape, *x.shape[3:]))

    return ordered(keys), ordered(values), {name: ordered(column) for name, column in columns.items()}


def column(name: str, piece: Entries) -> torch.Tensor:
    """A column of a piece, [B, Hkv, n], or what describes its entries while it is not stored."""
    keys, _, columns = piece
    if name in columns:
        return columns[name]
    if name == "index":  # nothing has been evicted yet: entries are the tokens 0, 1, 2, ...
        return torch.arange(keys.shape[2], device=keys.device, dtype=torch.int32).expand(keys.shape[:3])
    dtype, fill = FILL[name]
    return torch.full(keys.shape[:3], fill, dtype=dtype, device=keys.device)
