"""A part whose KV heads store different numbers of entries, actually freed: one flat buffer, a run of rows per head."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from laconic.cache.parts.base import FILL, Part, slack
from laconic.ops.fused import attend_ragged


class RaggedPart(Part):
    """keys [total, D], values [total, Dv], columns [total]; head (b, h) owns `counts[b][h]` entries from its start on."""

    kind = "ragged"

    def __init__(
        self,
        keys: torch.Tensor,
        values: torch.Tensor,
        columns: dict[str, torch.Tensor],
        lengths: torch.Tensor,
        room: int | None = None,
    ):
        """Take the first `lengths[b, h]` entries of every row of keys [B, Hkv, n, D], values, columns [B, Hkv, n]."""
        b, h, n = keys.shape[:3]
        self.shape = (b, h)
        self._layout(lengths.flatten().tolist(), room, keys.device)
        own = torch.arange(n, device=keys.device) < lengths.to(keys.device)[..., None]
        rows = self._rows()
        self._keys = self._filled(keys[own], rows)
        self._values = self._filled(values[own], rows)
        self._columns = {name: self._filled(column[own].to(FILL[name][0]), rows) for name, column in columns.items()}

    @classmethod
    def picked(
        cls,
        keys: torch.Tensor,
        values: torch.Tensor,
        columns: dict[str, torch.Tensor],
        index: torch.Tensor,
        lengths: torch.Tensor,
    ) -> RaggedPart:
        """Take the first `lengths[b, h]` entries of every row of `index` [B, Hkv, m] out of keys [B, Hkv, n, D] etc."""
        part = cls.__new__(cls)
        part.shape = (keys.shape[0], keys.shape[1])
        part._layout(lengths.flatten().tolist(), None, keys.device)

        def filled(x: torch.Tensor) -> torch.Tensor:
            buffer = x.new_empty(part._rows_allocated, *x.shape[3:])
            for i, (start, count) in enumerate(part._spans()):
                row, head = divmod(i, part.shape[1])
                buffer[start : start + count] = x[row, head].index_select(0, index[row, head, :count])
            return buffer

        part._keys, part._values = filled(keys), filled(values)
        part._columns = {name: filled(column.to(FILL[name][0])) for name, column in columns.items()}
        return part

    def _layout(self, counts: list[int], room: int | None, device: torch.device) -> None:
        """Give every head the same spare room, a share of the *mean* length: all heads grow together, so a short head with
        less room would cause everything to be copied again and again, and a share of the longest would waste memory."""
        self._room = slack(sum(counts) // len(counts)) if room is None else room
        self._counts, self._total = torch.tensor(counts), sum(counts)
        capacities = self._counts + self._room
        self._starts = capacities.cumsum(0) - capacities
        self._rows_allocated = int(capacities.sum())
        self._next = (self._starts + self._counts).to(device)

    @property
    def counts(self) -> list[int]:
        """Entries of every head in the order of the buffer, padding included."""
        return self._counts.tolist()

    def _spans(self) -> list[tuple[int, int]]:
        """(start, count) of every head."""
        return list(zip(self._starts.tolist(), self._counts.tolist(), strict=True))

    def _rows(self) -> torch.Tensor:
        """Flat row numbers of all stored entries, head by head."""
        before = self._counts.cumsum(0) - self._counts
        first = torch.repeat_interleave(self._starts - before, self._counts)
        return (first + torch.arange(first.shape[0])).to(self._next.device)

    def _used(self) -> torch.Tensor:
        """Entries of every head, padding included, [B, Hkv]."""
        return self._counts.view(self.shape).clone()

    def _filled(self, stored: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        buffer = stored.new_empty(self._rows_allocated, *stored.shape[1:])
        buffer[rows] = stored
        return buffer

    # -- views -----------------------------------------------------------------------------------------------------
    @property
    def length(self) -> int:  # type: ignore[override]
        """Entries of the longest head."""
        return int(self._counts.max())

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]."""
        valid = self._columns.get("valid")
        if valid is None:
            return self._used()
        return torch.tensor([int(valid[start : start + count].sum()) for start, count in self._spans()]).view(self.shape)

    @property
    def entries(self) -> int:
        """Real entries of all heads and rows together."""
        return int(self.lengths.sum()) if "valid" in self._columns else self._total

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values."""
        per_entry = self._keys.shape[-1] * self._keys.itemsize + self._values.shape[-1] * self._values.itemsize
        return self._total * per_entry

    def buffers(self) -> Iterator[torch.Tensor]:
        yield from (self._keys, self._values, *self._columns.values(), self._counts, self._starts, self._next)

    def has(self, name: str) -> bool:
        """Whether a column of this name is stored; unlike `columns` it copies nothing."""
        return name in self._columns

    @property
    def columns(self) -> dict[str, torch.Tensor]:
        return self.padded()[2]

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """A rectangular copy: keys [B, Hkv, n, D], values, columns with `valid`. For rescoring, not for decoding."""
        rows = self._rows()
        n = self.length
        own = torch.arange(n, device=rows.device) < self._used().to(rows.device)[..., None]

        def rectangle(buffer: torch.Tensor) -> torch.Tensor:
            out = buffer.new_zeros(*self.shape, n, *buffer.shape[1:])
            out[own] = buffer[rows]
            return out

        columns = {name: rectangle(column) for name, column in self._columns.items()}
        columns["valid"] = columns["valid"] & own if "valid" in columns else own
        return rectangle(self._keys), rectangle(self._values), columns

    # -- what the cache asks of a part -----------------------------------------------------------------------------
    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every stored entry of its own KV head -> output [B, H, T, Dv], lse [B, H, T]."""
        keys, values, starts, counts = self._keys, self._values, self._starts, self._counts
        return attend_ragged(q, keys, values, starts, counts, scale, bias=self._bias(), softcap=softcap)

    def _bias(self) -> torch.Tensor | None:
        """Additive logits [total], spare room included: -inf at padding; None when every entry is real and counts once."""
        valid, bias = self._columns.get("valid"), self._columns.get("bias")
        if valid is None:
            return bias
        bias = torch.zeros(valid.shape, device=valid.device) if bias is None else bias
        return bias.masked_fill(~valid, float("-inf"))

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Add keys [B, Hkv, q, D], values, columns [B, Hkv, q] after every head's entries."""
        new = keys.shape[2]
        if new > self._room:
            self._grow(new)
        rows = self._next
        if new > 1:
            rows = (rows[:, None] + torch.arange(new, device=keys.device)).flatten()
        self._keys.index_copy_(0, rows, keys.reshape(rows.shape[0], -1))
        self._values.index_copy_(0, rows, values.reshape(rows.shape[0], -1))
        for name in self._columns.keys() | columns.keys():
            dtype, fill = FILL[name]
            if name not in self._columns:
                self._columns[name] = torch.full((self._keys.shape[0],), fill, dtype=dtype, device=keys.device)
            if name in columns:
                self._columns[name].index_copy_(0, rows, columns[name].reshape(rows.shape).to(dtype))
            else:
                self._columns[name].index_fill_(0, rows, fill)
        self._counts += new
        self._total += new * len(self._counts)
        self._next += new
        self._room -= new

    def drop(self, n: int) -> None:
        self._counts, self._next = self._counts - n, self._next - n
        self._total -= n * len(self._counts)
        self._room += n

    def _grow(self, new: int) -> None:
        old, counts = self._rows(), self.counts
        self._layout(counts, new + slack(sum(counts) // len(counts) + new), old.device)
        rows = self._rows()
        self._keys, self._values = self._filled(self._keys[old], rows), self._filled(self._values[old], rows)
        self._columns = {name: self._filled(column[old], rows) for name, column in self._columns.items()}

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply `f` to every tensor in rectangular form [B, Hkv, n, ...]: batch selection, a move to another device."""
        keys, values, columns = self.padded()
        if "valid" not in self._columns:
            del columns["valid"]
        lengths = f(self._used().to(keys.device))
        part = RaggedPart(f(keys), f(values), {name: f(column) for name, column in columns.items()}, lengths)
        self.__dict__.update(part.__dict__)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to be saved, without spare room: entries in head order and the heads' lengths."""
        rows = self._rows()
        columns = {f"column.{name}": column[rows] for name, column in self._columns.items()}
        return {"lengths": self._used(), "keys": self._keys[rows], "values": self._values[rows], **columns}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> RaggedPart:
        part = cls.__new__(cls)
        lengths = tensors["lengths"]
        part.shape = (lengths.shape[0], lengths.shape[1])
        part._layout(lengths.flatten().tolist(), None, tensors["keys"].device)
        rows = part._rows()
        part._keys, part._values = part._filled(tensors["keys"], rows), part._filled(tensors["values"], rows)
        names = [k for k in tensors if k.startswith("column.")]
        part._columns = {k.removeprefix("column."): part._filled(tensors[k], rows) for k in names}
        return part
