"""A part whose entries are stored as codes, scales and the like, and the functions that move entries into it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeAlias

import torch

from laconic.cache.parts.base import FILL, DensePart, Part
from laconic.ops.corrected import Corrected
from laconic.ops.fused import attend_quantised
from laconic.ops.growing import Growing
from laconic.ops.quantise import Quantised

Matrix: TypeAlias = Quantised | Corrected
Columns: TypeAlias = dict[str, torch.Tensor]


class QuantisedPart(Part):
    """Entries in the order of their tokens, every head the same number; attended without a float copy of them.

    Attributes:
        keys, values: packed. Keys may run ahead of the values: only the first `length` entries belong to this part, and the
            keys after them to tokens that the next part still stores unquantised. `values` is None until the first arrive.
        dtype: of the entries when they are restored.
        first: token number of the first entry; a column `index` is kept only where token numbers are not consecutive.
    """

    kind = "quantised"
    matrix: ClassVar[type[Matrix]] = Quantised

    def __init__(self, keys: Matrix, values: Matrix | None, columns: Columns, dtype: torch.dtype):
        """Columns [B, Hkv, n] of the n entries whose values are given, `index` included."""
        self.keys, self.values, self.dtype, self.first = keys, values, dtype, 0
        self._columns = Growing({})
        if values is not None:
            self._remember(columns, 0)

    # -- views -----------------------------------------------------------------------------------------------------
    @property
    def length(self) -> int:  # type: ignore[override]
        """Entries of every head, filler included."""
        return 0 if self.values is None else self.values.length

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self._codes.bits

    @property
    def ahead(self) -> int:
        """Number of keys packed ahead of their values."""
        return self.keys.length - self.length

    @property
    def heads(self) -> tuple[int, int]:
        """B and Hkv."""
        b, h = self._codes.buffers["codes"].shape[:2]
        return b, h

    @property
    def _codes(self) -> Quantised:
        return self.keys.bulk if isinstance(self.keys, Corrected) else self.keys

    @property
    def lengths(self) -> torch.Tensor:
        valid = self._columns.get("valid")
        return torch.full(self.heads, self.length) if valid is None else valid.sum(-1)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and corrections of all keys and values, those ahead included."""
        return self.keys.nbytes + (0 if self.values is None else self.values.nbytes)

    def buffers(self) -> Iterator[torch.Tensor]:
        for matrix in (self.keys, self.values):
            if isinstance(matrix, Corrected):
                yield from matrix.terms.buffers()
            if matrix is not None:
                yield from (matrix.bulk if isinstance(matrix, Corrected) else matrix).buffers.values()
        yield from self._columns.buffers()

    def has(self, name: str) -> bool:
        return name in self._columns

    def bias(self) -> torch.Tensor | None:
        """Additive logits [B, Hkv, n], -inf at filler; None when every entry is real and counts once."""
        valid, bias = self._columns.get("valid"), self._columns.get("bias")
        if valid is None:
            return bias
        return (torch.zeros(valid.shape, device=valid.device) if bias is None else bias).masked_fill(~valid, float("-inf"))

    def padded(self) -> tuple[torch.Tensor, torch.Tensor, Columns]:
        """Keys, values and columns, restored; the columns include `index`."""
        n = self.length
        keys = self.keys.dequantise()[:, :, :n].to(self.dtype)
        values = keys if self.values is None else self.values.dequantise().to(self.dtype)
        columns = dict(self._columns)
        if "index" not in columns:
            columns["index"] = self._counted(0, n)
        return keys, values, columns

    # -- what the cache asks of a part -----------------------------------------------------------------------------
    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every entry -> output [B, H, T, Dv], lse [B, H, T]."""
        keys, values = self.keys, self.values
        assert isinstance(keys, Quantised) and isinstance(values, Quantised)
        if self.ahead:
            keys = copy.copy(keys)
            keys.length = values.length
        return attend_quantised(q, keys, values, scale, bias=self.bias(), softcap=softcap)

    def extend_keys(self, keys: Matrix) -> None:
        """Append packed keys; they are ahead until their values arrive."""
        self.keys.append(keys)  # type: ignore[arg-type]

    def extend(self, values: Matrix, columns: Columns) -> None:
        """Append packed values with their columns [B, Hkv, q], `index` included."""
        n = self.length
        if self.values is None:
            self.values = values
        else:
            self.values.append(values)  # type: ignore[arg-type]
        self._remember(columns, n)

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply `f` to every tensor, batch first. A copy that shares tensors with this part is not touched."""
        self.keys = self.matrix.from_tensors(self.keys.tensors())
        self.keys.map(f)
        if self.values is not None:
            self.values = self.matrix.from_tensors(self.values.tensors())
            self.values.map(f)
        self._columns = self._columns.mapped(f)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to be saved; the dtype of the tensor `dtype` records that of the entries."""
        stored = {"first": torch.tensor(self.first), "dtype": torch.zeros((), dtype=self.dtype)}
        stored |= {f"keys.{name}": x for name, x in self.keys.tensors().items()}
        if self.values is not None:
            stored |= {f"values.{name}": x for name, x in self.values.tensors().items()}
        return stored | {f"column.{name}": x.contiguous() for name, x in self._columns.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> QuantisedPart:
        def under(prefix: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}

        values = under("values.")
        keys = cls.matrix.from_tensors(under("keys."))
        part = cls(keys, None, {}, tensors["dtype"].dtype)
        part.values = cls.matrix.from_tensors(values) if values else None
        part.first, part._columns = int(tensors["first"]), Growing(under("column."))
        return part

    # -- columns ---------------------------------------------------------------------------------------------------
    def _counted(self, start: int, stop: int) -> torch.Tensor:
        """Token numbers of the entries `start` to `stop` where they are consecutive, [B, Hkv, stop - start]."""
        device = self._device()
        return torch.arange(self.first + start, self.first + stop, dtype=torch.int32, device=device).expand(*self.heads, -1)

    def _device(self) -> torch.device:
        return self._codes.buffers["codes"].device

    def _remember(self, columns: Columns, n: int) -> None:
        """Columns of the entries from number n on."""
        stop = self.length
        if n == 0:
            self.first = int(columns["index"][0, 0, 0])
        if "index" not in self._columns and torch.equal(columns["index"], self._counted(n, stop)):
            columns = {name: column for name, column in columns.items() if name != "index"}
        for name in columns.keys() - self._columns.keys():
            dtype, fill = FILL[name]
            older = self._counted(0, n) if name == "index" else torch.full((*self.heads, n), fill, dtype=dtype)
            self._columns.add(name, older.to(self._device()))
        blocks = {}
        for name in self._columns:
            dtype, fill = FILL[name]
            new = columns.get(name)
            blocks[name] = torch.full((*self.heads, stop - n), fill, dtype=dtype) if new is None else new.to(dtype)
        self._columns.append(blocks)


def shed(parts: list[Part], n: int) -> tuple[torch.Tensor, torch.Tensor, Columns]:
    """Take the first n entries of the last part (dense) -> keys [B, Hkv, n, D], values, columns with `index`. The rest moves
    to a new dense part of its own size, so that the memory of the others is free once they are packed."""
    dense = parts[-1]
    assert isinstance(dense, DensePart)
    numbered(parts)
    keys, values, columns = dense.padded()
    rest = {name: column[:, :, n:] for name, column in columns.items()}
    parts[-1] = DensePart(keys[:, :, n:], values[:, :, n:], rest)
    return keys[:, :, :n], values[:, :, :n], {name: column[:, :, :n] for name, column in columns.items()}


def numbered(parts: list[Part]) -> None:
    """Store the token numbers of the last part's entries (dense): from now on their place does not tell them."""
    dense = parts[-1]
    assert isinstance(dense, DensePart)
    if not dense.has("index"):
        start = sum(part.length for part in parts[:-1])
        index = torch.arange(start, start + dense.length, dtype=torch.int32, device=dense.keys.device)
        dense.write({"index": index})


def without_filler(x: torch.Tensor, columns: Columns, group: int) -> torch.Tensor:
    """x [B, Hkv, n, D], filler overwritten by the first real entry of its group of tokens, so it widens no range."""
    if "valid" not in columns or bool(columns["valid"].all()):
        return x
    filled = x.clone()
    for start in range(0, x.shape[2], group):
        own, real = filled[:, :, start : start + group], columns["valid"][:, :, start : start + group]
        first = real.int().argmax(-1)[..., None, None].expand(*own.shape[:2], 1, own.shape[3])
        own.copy_(torch.where(real[..., None], own, own.gather(2, first)))
    return filled
