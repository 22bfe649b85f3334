"""Storage of one layer's cache: parts that attend on their own and return (output, lse).

A part holds keys, values and *columns*: one small tensor per entry (its token index, whether it is real, whatever a method
accumulates). Capacity grows by a share, so appending a token costs the token, not the cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from laconic.ops.attend import attend

FILL: dict[str, tuple[torch.dtype, float]] = {
    "index": (torch.int32, -1),
    "valid": (torch.bool, 1),
    "mass": (torch.float32, 0),
}
"""dtype and default of every known column. `index` and `valid` belong to the core; `mass` is accumulated attention."""


def slack(n: int) -> int:
    """Spare entries beside n stored ones: a sixteenth, so that growth is amortised and memory stays within 6 %."""
    return max(32, n // 16)


def take(buffer: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> None:
    """Write the entries `index` [B, Hkv, m] of x [B, Hkv, n, D] to the first m of buffer [B, Hkv, capacity, D]."""
    b, h, m = index.shape
    if x.device.type != "cpu":
        buffer[:, :, :m] = x.gather(2, index[..., None].expand(b, h, m, x.shape[-1]))
        return
    for row in range(b):  # on a CPU whole rows are copied several times faster than `gather` looks up their numbers
        for head in range(h):
            buffer[row, head, :m] = x[row, head].index_select(0, index[row, head])


class DensePart:
    """Every KV head stores the same number of entries. keys [B, Hkv, n, D], values [B, Hkv, n, Dv]."""

    kind = "dense"

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor], room: int | None = None):
        """Take copies of keys, values and columns ([B, Hkv, n] each), with `room` spare entries behind them."""
        b, h, n = keys.shape[:3]
        room = slack(n) if room is None else room
        self.length = n
        self._keys = keys.new_empty(b, h, n + room, keys.shape[-1])
        self._values = values.new_empty(b, h, n + room, values.shape[-1])
        self._columns: dict[str, torch.Tensor] = {}
        self._keys[:, :, :n], self._values[:, :, :n] = keys, values
        for name, column in columns.items():
            self._column(name)[:, :, :n] = column

    @classmethod
    def picked(
        cls, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor], index: torch.Tensor
    ) -> DensePart:
        """Take the entries `index` [B, Hkv, m] of keys [B, Hkv, n, D], values and columns [B, Hkv, n], in one copy."""
        m = index.shape[-1]
        part = cls(keys[:, :, :0], values[:, :, :0], {}, room=m + slack(m))
        part.length = m
        take(part._keys, keys, index)
        take(part._values, values, index)
        part.write({name: column.gather(2, index) for name, column in columns.items()})
        return part

    # -- views -----------------------------------------------------------------------------------------------------
    @property
    def keys(self) -> torch.Tensor:
        return self._keys[:, :, : self.length]

    @property
    def values(self) -> torch.Tensor:
        return self._values[:, :, : self.length]

    @property
    def columns(self) -> dict[str, torch.Tensor]:
        return {name: column[:, :, : self.length] for name, column in self._columns.items()}

    def has(self, name: str) -> bool:
        """Whether a column of this name is stored."""
        return name in self._columns

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]."""
        valid = self.columns.get("valid")
        if valid is None:
            return torch.full(self._keys.shape[:2], self.length)
        return valid.sum(-1)

    @property
    def entries(self) -> int:
        """Real entries of all heads and rows together."""
        valid = self.columns.get("valid")
        return self.length * self._keys.shape[0] * self._keys.shape[1] if valid is None else int(valid.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values (filler of padded rows included, spare capacity not)."""
        return self.keys.nbytes + self.values.nbytes

    @property
    def allocated(self) -> int:
        """Bytes held in memory: spare capacity and columns included."""
        return self._keys.nbytes + self._values.nbytes + sum(c.nbytes for c in self._columns.values())

    def bias(self) -> torch.Tensor | None:
        """Additive logits [B, Hkv, n]: -inf at filler and padding; None when every entry is real."""
        valid = self.columns.get("valid")
        if valid is None:
            return None
        return torch.zeros(valid.shape, device=valid.device).masked_fill_(~valid, float("-inf"))

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """keys, values, columns as rectangles; dense parts are rectangles already."""
        return self.keys, self.values, self.columns

    # -- what the cache asks of a part -----------------------------------------------------------------------------
    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every stored entry -> output [B, H, T, Dv], lse [B, H, T]."""
        return attend(q, self.keys, self.values, scale, bias=self.bias(), softcap=softcap)

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Add entries behind the stored ones; the buffers grow only when the spare room is used up."""
        n, stop = self.length, self.length + keys.shape[2]
        if stop > self._keys.shape[2]:
            self._grow(stop + slack(stop))
        self._keys[:, :, n:stop], self._values[:, :, n:stop] = keys, values
        for name in self._columns.keys() | columns.keys():
            column = self._column(name)
            column[:, :, n:stop] = columns[name] if name in columns else FILL[name][1]
        self.length = stop

    def write(self, columns: dict[str, torch.Tensor]) -> None:
        """Overwrite columns [B, Hkv, n] of the stored entries."""
        for name, column in columns.items():
            self._column(name)[:, :, : self.length] = column

    def replace(self, slot: torch.Tensor, evict: torch.Tensor) -> None:
        """Forget one entry per head, without moving the others: the last entry takes its slot.

        Args:
            slot: entry number to forget, [B, Hkv].
            evict: whether this row forgets one at all, [B, Hkv]. Rows that must not evict while others do are kept
                rectangular by filler, which a later step fills first.
        """
        if bool(evict.all()) and "valid" not in self._columns:
            self._move_last(slot)
            return
        valid = self._column("valid")[:, :, : self.length]
        valid.scatter_(2, slot[..., None], valid.gather(2, slot[..., None]) & ~evict[..., None])
        if bool((~valid).any(-1).all()):
            self._move_last(valid.int().argmin(-1))

    def _move_last(self, slot: torch.Tensor) -> None:
        last = self.length - 1
        for buffer in (self._keys, self._values, *self._columns.values()):
            at = slot.view(*slot.shape, *[1] * (buffer.ndim - 2)).expand(*slot.shape, 1, *buffer.shape[3:])
            buffer.scatter_(2, at, buffer[:, :, last : last + 1].clone())
        self.length = last

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply `f` to every tensor: batch selection, beam reordering, a move to another device."""
        self._keys, self._values = f(self._keys), f(self._values)
        self._columns = {name: f(column) for name, column in self._columns.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to be saved, without spare room."""
        stored = {"keys": self.keys, "values": self.values, **{f"column.{k}": v for k, v in self.columns.items()}}
        return {name: x.contiguous() for name, x in stored.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> DensePart:
        columns = {k.removeprefix("column."): v for k, v in tensors.items() if k.startswith("column.")}
        return cls(tensors["keys"], tensors["values"], columns)

    def _column(self, name: str) -> torch.Tensor:
        """The buffer of a column; one that appears late gets the default for older entries."""
        if name not in self._columns:
            dtype, fill = FILL[name]
            shape = self._keys.shape[:3]
            self._columns[name] = torch.full(shape, fill, dtype=dtype, device=self._keys.device)
            if name == "index":  # entries without an index column are the tokens 0, 1, 2, ... in order
                self._columns[name][:] = torch.arange(shape[2], device=self._keys.device)
        return self._columns[name]

    def _grow(self, capacity: int) -> None:
        def grown(buffer: torch.Tensor) -> torch.Tensor:
            larger = buffer.new_empty(*buffer.shape[:2], capacity, *buffer.shape[3:])
            larger[:, :, : self.length] = buffer[:, :, : self.length]
            return larger

        self.map(grown)
