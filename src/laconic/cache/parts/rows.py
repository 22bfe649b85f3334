"""A part in which every batch row has its own parts: what padded batches become when entries are packed in blocks.

Sequences of different lengths fill their blocks at different times and begin their groups at different tokens. Stored
separately, without their padding, each one is packed exactly as it would be by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from laconic.cache.parts.base import FILL, KINDS, DensePart, Entries, Part
from laconic.ops.attend import merge


class RowsPart(Part):
    """``rows[b]`` are the parts of batch row b, the last of which grows. Attention runs row by row."""

    kind = "rows"

    def __init__(self, rows: list[list[Part]]):
        self.rows = rows

    @classmethod
    def split(cls, parts: list[Part], batch: int) -> RowsPart:
        """The same entries row by row; the padding of the last part (dense) is dropped."""
        rows = []
        for b in range(batch):
            own = []
            for part in parts[:-1]:
                part = copy.copy(part)
                part.map(lambda x, b=b: x[b : b + 1])  # type: ignore[misc]
                own.append(part)
            keys, values, columns = parts[-1].padded()
            columns = {name: column[b : b + 1] for name, column in columns.items()}
            rows.append([*own, _real(keys[b : b + 1], values[b : b + 1], columns)])
        return cls(rows)

    # -- views -----------------------------------------------------------------------------------------------------
    @property
    def length(self) -> int:  # type: ignore[override]
        return max(sum(part.length for part in row) for row in self.rows)

    @property
    def lengths(self) -> torch.Tensor:
        return torch.cat([torch.stack([part.lengths for part in row]).sum(0) for row in self.rows])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for row in self.rows for part in row)

    def buffers(self) -> Iterator[torch.Tensor]:
        for row in self.rows:
            for part in row:
                yield from part.buffers()

    def has(self, name: str) -> bool:
        return name == "valid" or any(part.has(name) for row in self.rows for part in row)

    def padded(self) -> Entries:
        """All rows as one rectangle, restored, filler at the end."""
        n = self.length
        rows = [_joined([part.padded() for part in _used(row)]) for row in self.rows]
        names = {name for _, _, columns in rows for name in columns} | {"valid"}

        def column(name: str, piece: Entries) -> torch.Tensor:
            own = _column(name, piece)
            return F.pad(own, (0, n - own.shape[2]), value=0 if name == "valid" else FILL[name][1])

        def rectangle(pieces: list[torch.Tensor]) -> torch.Tensor:
            return torch.cat([F.pad(x, (0, 0, 0, n - x.shape[2])) for x in pieces])

        keys, values = rectangle([piece[0] for piece in rows]), rectangle([piece[1] for piece in rows])
        return keys, values, {name: torch.cat([column(name, piece) for piece in rows]) for name in names}

    # -- what the cache asks of a part -----------------------------------------------------------------------------
    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        done = []
        for b, row in enumerate(self.rows):
            done.append(merge([part.attend(q[b : b + 1], scale, softcap) for part in _used(row)]))
        out, lse = zip(*done, strict=True)
        return torch.cat(out), torch.cat(lse)

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        for b, row in enumerate(self.rows):
            own = {name: column[b : b + 1] for name, column in columns.items()}
            k, v = keys[b : b + 1], values[b : b + 1]
            if "valid" in own:  # padding of a later turn, the same in all heads
                real = own.pop("valid")[0, 0]
                k, v, own = k[:, :, real], v[:, :, real], {name: column[:, :, real] for name, column in own.items()}
            row[-1].append(k, v, own)

    def drop(self, n: int) -> None:
        """Padding was not stored, so what the tokens left is found by their numbers."""
        newest = [int(part.padded()[2]["index"].max()) for part in (row[-1] for row in self.rows) if part.length]
        self.rows = [[*row[:-1], copy.copy(row[-1])] for row in self.rows]  # a fork may share the old ones
        for row in self.rows:
            index = row[-1].padded()[2]["index"][0, 0]
            row[-1].drop(int((index > max(newest) - n).sum()))

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Do to the list of rows what `f` does to a batch; tensors are copied to where `f` puts them."""
        order = f(torch.arange(len(self.rows), device=self._device()))
        rows = []
        for b in order.tolist():
            row = [copy.copy(part) for part in self.rows[b]]
            for part in row:
                part.map(lambda x: x.to(order.device, copy=True))
            rows.append(row)
        self.rows = rows

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors of row b, part i under ``b.i.kind.``."""
        return {
            f"{b}.{i}.{part.kind}.{name}": x
            for b, row in enumerate(self.rows)
            for i, part in enumerate(row)
            for name, x in part.tensors().items()
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> RowsPart:
        found: dict[tuple[int, int, str], dict[str, torch.Tensor]] = {}
        for path, x in tensors.items():
            b, i, kind, name = path.split(".", 3)
            found.setdefault((int(b), int(i), kind), {})[name] = x
        rows: list[list[Part]] = [[] for _ in range(1 + max(b for b, _, _ in found))]
        for (row, _, kind), own in sorted(found.items(), key=lambda item: item[0]):
            rows[row].append(KINDS[kind].from_tensors(own))
        return cls(rows)

    def _device(self) -> torch.device:
        last = self.rows[0][-1]
        assert isinstance(last, DensePart)
        return last.keys.device


def _used(row: list[Part]) -> list[Part]:
    """Parts that hold something, and the last one in any case, so that a row of nothing but padding is still a row."""
    return [part for part in row[:-1] if part.length] + row[-1:]


def _real(keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> DensePart:
    """One row's real entries, in order. Where its heads hold different numbers, the shorter ones keep filler."""
    index = torch.arange(keys.shape[2], dtype=torch.int32, device=keys.device).expand(keys.shape[:3])
    columns = {"index": index, **columns}
    valid = columns.pop("valid", torch.ones_like(index, dtype=torch.bool))
    counts = valid.sum(-1)
    order = (~valid).int().argsort(dim=-1, stable=True)[..., : int(counts.max())]
    if bool((counts != counts[0, 0]).any()):
        columns["valid"] = valid
    return DensePart.picked(keys, values, columns, order)


def _joined(pieces: list[Entries]) -> Entries:
    names = {name for piece in pieces for name in piece[2]}
    keys, values = torch.cat([piece[0] for piece in pieces], 2), torch.cat([piece[1] for piece in pieces], 2)
    return keys, values, {name: torch.cat([_column(name, piece) for piece in pieces], 2) for name in names}


def _column(name: str, piece: Entries) -> torch.Tensor:
    keys, _, columns = piece
    if name in columns:
        return columns[name]
    dtype, fill = FILL[name]
    return torch.full(keys.shape[:3], fill, dtype=dtype, device=keys.device)
