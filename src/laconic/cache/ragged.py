"""A part whose KV heads store different numbers of entries, really freed: one flat buffer, a run of rows per head."""

from __future__ import annotations

from collections.abc import Callable

import torch

from laconic.cache.parts import FILL, Part, slack
from laconic.ops.attend import attend


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
        self.counts: list[int] = [int(c) for c in lengths.flatten().tolist()]
        self._layout(room, keys.device)
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
        part.counts = [int(c) for c in lengths.flatten().tolist()]
        part._layout(None, keys.device)

        def filled(x: torch.Tensor) -> torch.Tensor:
            buffer = x.new_empty(part._starts[-1], *x.shape[3:])
            for i, (start, count) in enumerate(zip(part._starts, part.counts, strict=False)):
                row, head = divmod(i, part.shape[1])
                buffer[start : start + count] = x[row, head].index_select(0, index[row, head, :count])
            return buffer

        part._keys, part._values = filled(keys), filled(values)
        part._columns = {name: filled(column.to(FILL[name][0])) for name, column in columns.items()}
        return part

    def _layout(self, room: int | None, device: torch.device) -> None:
        """Give every head the same spare room, a share of the *mean* length: all heads grow together, so a short head with
        less would copy everybody again and again, and a share of the longest would waste memory."""
        room = slack(sum(self.counts) // len(self.counts)) if room is None else room
        self._capacities = capacities = [count + room for count in self.counts]
        starts = [0]
        for capacity in capacities:
            starts.append(starts[-1] + capacity)
        self._starts = starts
        self._start_tensor = torch.tensor(starts[:-1], device=device)

    def _rows(self) -> torch.Tensor:
        """Flat row numbers of all stored entries, head by head."""
        device = self._start_tensor.device
        counts = torch.tensor(self.counts, device=device)
        first = torch.repeat_interleave(self._start_tensor - (counts.cumsum(0) - counts), counts)
        return first + torch.arange(int(counts.sum()), device=device)

    def _used(self) -> torch.Tensor:
        """Entries of every head, padding included, [B, Hkv]."""
        return torch.tensor(self.counts).view(self.shape)

    def _filled(self, stored: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        buffer = stored.new_empty(self._starts[-1], *stored.shape[1:])
        buffer[rows] = stored
        return buffer

    # -- views -----------------------------------------------------------------------------------------------------
    @property
    def length(self) -> int:  # type: ignore[override]
        """Entries of the longest head."""
        return max(self.counts)

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]."""
        valid = self._columns.get("valid")
        if valid is None:
            return self._used()
        spans = zip(self._starts, self.counts, strict=False)
        return torch.tensor([int(valid[start : start + count].sum()) for start, count in spans]).view(self.shape)

    @property
    def entries(self) -> int:
        """Real entries of all heads and rows together."""
        return int(self.lengths.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values."""
        per_entry = self._keys.shape[-1] * self._keys.itemsize + self._values.shape[-1] * self._values.itemsize
        return sum(self.counts) * per_entry

    @property
    def allocated(self) -> int:
        """Bytes held in memory: spare capacity and columns included."""
        return self._keys.nbytes + self._values.nbytes + sum(c.nbytes for c in self._columns.values())

    def has(self, name: str) -> bool:
        """Whether a column of this name is stored; unlike `columns` it copies nothing."""
        return name in self._columns

    @property
    def columns(self) -> dict[str, torch.Tensor]:
        return self.padded()[2]

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """A rectangular copy: keys [B, Hkv, n, D], values, columns with `valid`. For scoring again, not for decoding."""
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
        (b, hkv), (_, heads, t, d) = self.shape, q.shape
        grouped = q.reshape(b * hkv, 1, heads // hkv, t, d)
        done = []
        valid = self._columns.get("valid")
        for row, (start, count) in enumerate(zip(self._starts, self.counts, strict=False)):
            stop = start + count
            bias = None
            if valid is not None:
                bias = torch.zeros(1, 1, count, device=q.device).masked_fill_(~valid[start:stop], float("-inf"))
            k, v = self._keys[None, None, start:stop], self._values[None, None, start:stop]
            done.append(attend(grouped[row], k, v, scale, bias=bias, softcap=softcap))
        out, lse = (torch.cat(x) for x in zip(*done, strict=True))
        return out.view(b, heads, t, -1), lse.view(b, heads, t)

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Add keys [B, Hkv, q, D], values, columns [B, Hkv, q] behind every head's entries."""
        new = keys.shape[2]
        if any(count + new > capacity for count, capacity in zip(self.counts, self._capacities, strict=True)):
            self._grow(new)
        rows = self._start_tensor + torch.tensor(self.counts, device=keys.device)
        if new > 1:
            rows = (rows[:, None] + torch.arange(new, device=keys.device)).flatten()
        self._keys.index_copy_(0, rows, keys.reshape(rows.shape[0], -1))
        self._values.index_copy_(0, rows, values.reshape(rows.shape[0], -1))
        for name in self._columns.keys() | columns.keys():
            dtype, fill = FILL[name]
            if name not in self._columns:
                self._columns[name] = torch.full((self._keys.shape[0],), fill, dtype=dtype, device=keys.device)
            entries = columns[name].reshape(rows.shape).to(dtype) if name in columns else fill
            self._columns[name][rows] = entries
        self.counts = [count + new for count in self.counts]

    def _grow(self, new: int) -> None:
        old = self._rows()
        room = new + slack(sum(self.counts) // len(self.counts) + new)
        self._layout(room, old.device)
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
        part.counts = [int(c) for c in lengths.flatten().tolist()]
        part._layout(None, tensors["keys"].device)
        rows = part._rows()
        part._keys, part._values = part._filled(tensors["keys"], rows), part._filled(tensors["values"], rows)
        names = [k for k in tensors if k.startswith("column.")]
        part._columns = {k.removeprefix("column."): part._filled(tensors[k], rows) for k in names}
        return part
