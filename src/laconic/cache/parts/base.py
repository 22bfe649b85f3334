"""Storage of one layer's cache: parts that attend on their own and return (output, lse).

A part holds keys, values and *columns*: one small tensor per entry (its token index, whether it is real, whatever a method
accumulates). Capacity grows by a share, so appending a token costs the token, not the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import torch

from laconic.ops.attend import attend

if TYPE_CHECKING:
    from laconic.cache.layer import CompressedLayer

FILL: dict[str, tuple[torch.dtype, float]] = {
    "index": (torch.int32, -1),
    "valid": (torch.bool, 1),
    "bias": (torch.float32, 0),
    "mass": (torch.float32, 0),
    "score": (torch.float32, 0),
    "count": (torch.float32, 0),
    "rank": (torch.int32, 0),
    "position": (torch.int32, 0),
}
"""dtype and default of every known column. `index`, `valid` and `bias` (an additive logit: log N for an entry that stands
for N tokens) belong to the core; `mass` is accumulated attention, `score` the
importance that an earlier pass found, `count` the number of queries or tokens behind it, `rank`
the place of an entry in its head where the order of storage does not tell, `position` its RoPE position."""

Entries = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]
"""Keys [B, Hkv, n, D], values [B, Hkv, n, Dv], and columns [B, Hkv, n] by name."""

KINDS: dict[str, type[Part]] = {}
"""Every kind of part by its name, for loading."""


class Part:
    """A piece of a layer's cache that attends on its own: the interface that every kind of part implements.

    Attributes:
        kind: name of the kind in saved files.
        length: entries of the longest head, padding included.
        frozen: forks of the cache share this part, so its tensors must not be written to; later entries go into another.
    """

    kind: ClassVar[str]
    length: int
    frozen: bool = False

    def __init_subclass__(cls) -> None:
        KINDS[cls.kind] = cls

    @property
    def plain(self) -> bool:
        """True for dense keys and values of which every entry counts once, so that one kernel call on them is enough."""
        return False

    @property
    def lengths(self) -> torch.Tensor:
        """Real entries of every head, [B, Hkv]."""
        raise NotImplementedError

    @property
    def entries(self) -> int:
        """Real entries of all heads and rows together."""
        return int(self.lengths.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored for keys and values (scales, factors, outliers and the like included)."""
        raise NotImplementedError

    @property
    def allocated(self) -> int:
        """Bytes held in memory, spare capacity and columns included."""
        return memory_of(self.buffers())

    def buffers(self) -> Iterator[torch.Tensor]:
        """Every tensor that this part keeps in memory, spare room included; what a neighbour holds for it is not among
        them."""
        raise NotImplementedError

    def has(self, name: str) -> bool:
        """Whether a column of this name is stored."""
        raise NotImplementedError

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """keys [B, Hkv, n, D], values and columns [B, Hkv, n] as rectangles, restored where they are stored otherwise."""
        raise NotImplementedError

    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every stored entry of its own KV head -> output [B, H, T, Dv], lse [B, H, T]."""
        raise NotImplementedError

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Add entries [B, Hkv, q, D] after the stored ones. Called only on the last part of a layer."""
        raise NotImplementedError

    def followed_by(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> Part:
        """A new part for these entries, [B, Hkv, q, D], which come after the stored ones while this part is frozen."""
        return DensePart(keys, values, columns)

    def drop(self, n: int) -> None:
        """Remove the last `n` entries that were appended to every head. Called where nothing was done to them since."""
        if n:
            raise NotImplementedError(f"a {type(self).__name__} does not grow, so nothing can be rolled back in it.")

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply `f` to every tensor, batch first: selection of rows, beam reordering, a move to another device."""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to be saved, without spare room; plain numbers as 0-d tensors."""
        raise NotImplementedError

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Part:
        """The part that `tensors()` described."""
        raise NotImplementedError

    def link(self, layer: CompressedLayer) -> None:
        """Called when a loaded part is put into its layer, to fetch what is not stored (rotary phases, a neighbour)."""


def memory_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of memory behind `tensors`: whole storages, of which a tensor may show a part, each counted once."""
    storages = {(x.device, x.untyped_storage().data_ptr()): x.untyped_storage().nbytes() for x in tensors}
    return sum(storages.values())


def slack(n: int) -> int:
    """Spare entries beside n stored ones: a sixteenth, so that growth is amortised and memory stays within 6 %."""
    return max(32, n // 16)


def take(buffer: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> None:
    """Write the entries `index` [B, Hkv, m] of x [B, Hkv, n, D] to the first m of buffer [B, Hkv, capacity, D]."""
    b, h, m = index.shape
    if x.device.type != "cpu":
        buffer[:, :, :m] = x.gather(2, index[..., None].expand(b, h, m, x.shape[-1]))
        return
    for row in range(b):  # on a CPU, copying whole rows is several times faster than `gather`
        for head in range(h):
            buffer[row, head, :m] = x[row, head].index_select(0, index[row, head])


class DensePart(Part):
    """Every KV head stores the same number of entries. keys [B, Hkv, n, D], values [B, Hkv, n, Dv]."""

    kind = "dense"

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor], room: int | None = None):
        """Copy keys, values and columns ([B, Hkv, n] each), with `room` spare entries after them."""
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

    @classmethod
    def of(cls, part: DensePart, layer: CompressedLayer) -> DensePart:
        """`part` as one of this kind, in `layer`; `part` must not be used afterwards."""
        return part

    # -- views -----------------------------------------------------------------------------------------------------
    @property
    def plain(self) -> bool:
        return type(self) is DensePart and "valid" not in self._columns and "bias" not in self._columns

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
        valid = self._columns.get("valid")
        if valid is None:
            return torch.full(self._keys.shape[:2], self.length)
        return valid[:, :, : self.length].sum(-1)

    @property
    def entries(self) -> int:
        if "valid" in self._columns:
            return super().entries
        return self.length * self._keys.shape[0] * self._keys.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the stored keys and values (filler of padded rows included, spare capacity not)."""
        return self.keys.nbytes + self.values.nbytes

    def buffers(self) -> Iterator[torch.Tensor]:
        yield from (self._keys, self._values, *self._columns.values())

    def bias(self) -> torch.Tensor | None:
        """Additive logits [B, Hkv, n]: -inf at filler and padding; None when every entry is real and counts once."""
        valid, bias = self._columns.get("valid"), self._columns.get("bias")
        if bias is not None:
            bias = bias[:, :, : self.length]
        if valid is None:
            return bias
        valid = valid[:, :, : self.length]
        if bias is None:
            bias = torch.zeros(valid.shape, device=valid.device)
        return bias.masked_fill(~valid, float("-inf"))

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """keys, values, columns as rectangles; dense parts are rectangles already."""
        return self.keys, self.values, self.columns

    # -- what the cache asks of a part -----------------------------------------------------------------------------
    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every stored entry -> output [B, H, T, Dv], lse [B, H, T]."""
        return attend(q, self.keys, self.values, scale, bias=self.bias(), softcap=softcap)

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Add entries after the stored ones; the buffers grow only when the spare room is used up."""
        n, stop = self.length, self.length + keys.shape[2]
        if stop > self._keys.shape[2]:
            self._grow(stop + slack(stop))
        self._keys[:, :, n:stop], self._values[:, :, n:stop] = keys, values
        for name in self._columns.keys() | columns.keys():
            column = self._column(name)
            column[:, :, n:stop] = columns[name] if name in columns else FILL[name][1]
        self.length = stop

    def drop(self, n: int) -> None:
        self.length -= n

    def take_first(self, n: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Remove the first n entries and return copies of them: keys [B, Hkv, n, D], values, columns. The rest moves to the
        front, so use this where the rest is short."""
        first = (self.keys[:, :, :n].clone(), self.values[:, :, :n].clone())
        columns = {name: column[:, :, :n].clone() for name, column in self._columns.items()}
        for buffer in (self._keys, self._values, *self._columns.values()):
            buffer[:, :, : self.length - n] = buffer[:, :, n : self.length].clone()
        self.length -= n
        return *first, columns

    def write(self, columns: dict[str, torch.Tensor]) -> None:
        """Overwrite columns [B, Hkv, n] of the stored entries."""
        for name, column in columns.items():
            self._column(name)[:, :, : self.length] = column

    def replace(self, slot: torch.Tensor, evict: torch.Tensor | None = None) -> None:
        """Forget one entry per head, without moving the others: the last entry takes its slot.

        Args:
            slot: entry number to forget, [B, Hkv].
            evict: whether this head forgets one at all, [B, Hkv]; None means that all do. Where only some do, the freed
                slots become filler, which keeps the part rectangular; they are reused first in a later step.
        """
        if (evict is None or bool(evict.all())) and "valid" not in self._columns:
            self._move_last(slot)
            return
        valid = self._column("valid")[:, :, : self.length]
        stays = valid.gather(2, slot[..., None])
        valid.scatter_(2, slot[..., None], torch.zeros_like(stays) if evict is None else stays & ~evict[..., None])
        if bool((~valid).any(-1).all()):
            self._move_last(valid.int().argmin(-1))

    def _move_last(self, slot: torch.Tensor) -> None:
        last, capacity = self.length - 1, self._keys.shape[2]
        head = torch.arange(slot.numel(), device=slot.device) * capacity
        to, source = head + slot.flatten(), head + last
        for buffer in (self._keys, self._values, *self._columns.values()):
            rows = buffer.view(slot.numel() * capacity, -1)
            rows.index_copy_(0, to, rows.index_select(0, source))
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
        """The buffer of a column; a new one gets the default for older entries."""
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
