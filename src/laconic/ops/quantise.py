"""Keys and values in 2, 3, 4 or 8 bits: asymmetric min-max groups (arXiv 2402.02750; KCVT of arXiv 2403.05527).

``zero = min, step = (max - min) / (2^b - 1), code = round((x - zero) / step), x' = code * step + zero``. Keys share a group
along tokens (one channel), values along channels (one token). Zeros and steps are stored in float16, rounded outwards (zero
down, step up), so the stored range covers its numbers and |x - x'| <= step / 2 holds for the stored step.

**Layout.** Tokens are stored in tiles of `tile`. Inside a tile keys are channel-major [D, tile], values [D / group, tile,
group]: a loop over a tile then reads contiguous memory in both products of attention. A tile is packed in one piece, in
*planes*: with 4 bits byte i holds codes i (low) and i + half, with 2 bits four codes a quarter apart; see `pack`.

**Bytes per number:** (b + 32 / group) / 8. With 4 bits that is 0.3125 of a float16 cache at group 32 and 0.281 at group 64,
the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

BITS = (2, 3, 4, 8)
GROUP, TILE = 64, 32
Per = Literal["channel", "token"]


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """codes uint8 [..., n] below 2^bits -> uint8 [..., n * bits / 8], n a multiple of 8.

    Plane p of 8 / bits holds the codes p * n * bits / 8 and up, shifted left by p * bits. 3 bits are the 2-bit planes of the
    low bits followed by the eight 1-bit planes of the high bits.
    """
    _check_bits(bits)
    if codes.shape[-1] % 8:
        raise ValueError(f"codes: {codes.shape[-1]} per row; the number must be a multiple of 8.")
    if bits == 3:
        return torch.cat([_planes(codes & 3, 2), _planes(codes >> 2, 1)], -1)
    return _planes(codes, bits)


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 [..., m] -> codes uint8 [..., m * 8 / bits]; the inverse of `pack`."""
    _check_bits(bits)
    if bits == 3:
        low, high = packed.split([packed.shape[-1] // 3 * 2, packed.shape[-1] // 3], -1)
        return _unplanes(low, 2) | (_unplanes(high, 1) << 2)
    return _unplanes(packed, bits)


def _planes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    planes = codes.unflatten(-1, (8 // bits, -1)).unbind(-2)
    packed = planes[0].clone()
    for p, plane in enumerate(planes[1:], 1):
        packed |= plane << (p * bits)
    return packed


def _unplanes(packed: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.cat([(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)], -1)


def quantise_keys(x: torch.Tensor, bits: int, group: int | None = GROUP, *, tile: int = TILE) -> Quantised:
    """x [B, Hkv, n, D] -> per channel, in groups of `group` consecutive tokens; None: one group over all n tokens (KCVT).

    The last group is shorter where n is not a multiple of `group`. `tile` divides `group` and is a multiple of 8.
    """
    b, h, n, d = x.shape
    _check(x, bits, tile)
    if group is not None and (group < tile or group % tile):
        raise ValueError(
            f"group={group}: a key group must be a multiple of the tile of {tile} tokens; pass tile= (a multiple of 8)."
        )
    tiles = -(-n // tile)
    span = tiles * tile if group is None else group
    groups = -(-n // span)
    rows = _padded(x.float(), groups * span).view(b, h, groups, span, d)
    zero, step = _ranges(rows.amin(3), rows.amax(3), bits)
    codes = _codes(rows, zero[:, :, :, None], step[:, :, :, None], bits).view(b, h, -1, d)[:, :, : tiles * tile]
    packed = pack(codes.view(b, h, tiles, tile, d).transpose(-1, -2).reshape(b, h, tiles, -1), bits)
    owner = (torch.arange(tiles, dtype=torch.int32, device=x.device) // (span // tile)).repeat(b, 1, 1)
    return Quantised(bits, "channel", tile, d, d, n, {"codes": packed, "step": step, "zero": zero, "owner": owner})


def quantise_values(x: torch.Tensor, bits: int, group: int | None = GROUP, *, tile: int = TILE) -> Quantised:
    """x [B, Hkv, n, D] -> per token, in groups of `group` consecutive channels of a head; None: one group over all channels
    of all heads (KCVT). A head smaller than `group` is one group."""
    b, h, n, d = x.shape
    _check(x, bits, tile)
    width = d if group is None else min(group, d)
    if d % width or width % 8:
        raise ValueError(f"group={group}: a value group must be a multiple of 8 that divides the head size {d}.")
    tiles = -(-n // tile)
    rows = _padded(x.float(), tiles * tile).view(b, h, tiles, tile, d // width, width).transpose(3, 4)
    low, high = rows.amin(-1), rows.amax(-1)  # [B, Hkv, tiles, D / group, tile]
    if group is None:
        low, high = low.amin(1, keepdim=True), high.amax(1, keepdim=True)
    zero, step = _ranges(low, high, bits)
    codes = _codes(rows, zero[..., None], step[..., None], bits)
    buffers = {"codes": pack(codes.reshape(b, h, tiles, -1), bits), "step": step.flatten(3), "zero": zero.flatten(3)}
    return Quantised(bits, "token", tile, d, width, n, buffers)


@dataclass
class Quantised:
    """The keys (`per="channel"`) or the values (`per="token"`) of one layer, packed; it grows along tokens.

    Attributes:
        bits, tile: bits of a code; tokens of a tile.
        head_dim: D. width: channels that share a value group (D for keys, whose groups do not cross channels).
        length: tokens stored; where the last tile is partly filler, nothing can be appended.
        buffers: with spare room along dimension 2. codes uint8 [B, Hkv, tiles, tile * D * bits / 8]. Keys: step, zero
            float16 [B, Hkv, groups, D], owner int32 [B, 1, tiles], the group of every tile. Values: step, zero float16
            [B, Hkv or 1, tiles, D / width * tile]; 1 where all heads share a group.
    """

    bits: int
    per: Per
    tile: int
    head_dim: int
    width: int
    length: int
    buffers: dict[str, torch.Tensor]

    def __post_init__(self) -> None:
        self._used = {name: buffer.shape[2] for name, buffer in self.buffers.items()}

    @property
    def tiles(self) -> int:
        return self._used["codes"]

    def stored(self, name: str) -> torch.Tensor:
        """A buffer without its spare room."""
        return self.buffers[name][:, :, : self._used[name]]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, steps and zeros (filler of the last tile included, spare room and `owner` not)."""
        return sum(self.stored(name).nbytes for name in ("codes", "step", "zero"))

    def dequantise(self, first: int = 0, last: int | None = None) -> torch.Tensor:
        """The tokens of tiles `first` to `last` (default all) -> float32 [B, Hkv, n, D]."""
        last = self.tiles if last is None else min(last, self.tiles)
        packed = self.buffers["codes"][:, :, first:last]
        b, h, tiles, _ = packed.shape
        codes = unpack(packed, self.bits).float()
        if self.per == "channel":
            owner = self.buffers["owner"][:, :, first:last, None].long().expand(b, h, tiles, self.head_dim)
            step, zero = (self.buffers[name].gather(2, owner)[..., None].float() for name in ("step", "zero"))
            x = (codes.view(b, h, tiles, self.head_dim, self.tile) * step + zero).transpose(-1, -2)
        else:
            shape = (tiles, self.head_dim // self.width, self.tile)
            step, zero = (self.buffers[name][:, :, first:last].reshape(b, -1, *shape) for name in ("step", "zero"))
            x = codes.view(b, h, *shape, self.width) * step[..., None].float() + zero[..., None].float()
            x = x.transpose(3, 4)
        x = x.reshape(b, h, tiles * self.tile, self.head_dim)
        return x[:, :, : max(0, min(self.length - first * self.tile, x.shape[2]))]

    def append(self, block: Quantised) -> None:
        """Append another block of tokens; what is stored stays in place until its spare room is used up."""
        mine, theirs = ((q.bits, q.per, q.tile, q.head_dim, q.width) for q in (self, block))
        if mine != theirs:
            raise ValueError(f"append: {theirs} (bits, per, tile, head size, width) onto {mine}; quantise both alike.")
        if self.length % self.tile:
            raise ValueError(f"append: {self.length} tokens stored; only whole tiles of {self.tile} can be appended to.")
        for name in self.buffers:
            new = block.stored(name)
            if name == "owner":
                new = new + self._used["step"]
            self._write(name, new)
        for name in self.buffers:
            self._used[name] += block._used[name]
        self.length += block.length

    def _write(self, name: str, new: torch.Tensor) -> None:
        buffer, n = self.buffers[name], self._used[name]
        stop = n + new.shape[2]
        if stop > buffer.shape[2]:  # a sixteenth of spare room, so that growth is amortised
            larger = buffer.new_empty(*buffer.shape[:2], stop + max(4, stop // 16), *buffer.shape[3:])
            larger[:, :, :n] = buffer[:, :, :n]
            self.buffers[name] = buffer = larger
        buffer[:, :, n:stop] = new

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Apply `f` to every buffer (batch first): batch selection, beam reordering, a move to another device."""
        self.buffers = {name: f(buffer).contiguous() for name, buffer in self.buffers.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """What has to be saved, without spare room; `layout` holds the numbers."""
        layout = [self.bits, int(self.per == "token"), self.tile, self.head_dim, self.width, self.length]
        return {"layout": torch.tensor(layout), **{name: self.stored(name).contiguous() for name in self.buffers}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Quantised:
        bits, per_token, tile, head_dim, width, length = tensors["layout"].tolist()
        buffers = {name: tensor for name, tensor in tensors.items() if name != "layout"}
        return cls(bits, "token" if per_token else "channel", tile, head_dim, width, length, buffers)


def _check_bits(bits: int) -> None:
    if bits not in BITS:
        raise ValueError(f"bits={bits}: choose 2, 3, 4 or 8.")


def _check(x: torch.Tensor, bits: int, tile: int) -> None:
    _check_bits(bits)
    if tile < 8 or tile % 8:
        raise ValueError(f"tile={tile}: a tile must have a multiple of 8 tokens.")
    if x.shape[2] == 0:
        raise ValueError("x: no tokens; quantise one or more.")


def _padded(x: torch.Tensor, n: int) -> torch.Tensor:
    """Fill up to n tokens with copies of the last one, which change no group's range."""
    missing = n - x.shape[2]
    return x if missing == 0 else torch.cat([x, x[:, :, -1:].expand(-1, -1, missing, -1)], 2)


def _ranges(low: torch.Tensor, high: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero and step in float16, rounded outwards; a group of equal numbers has step 0 where float16 holds it exactly."""
    zero = low.half()  # the float16 next to a number is the one whose bits, as an integer, differ by one
    bits_of = zero.view(torch.int16)
    zero = torch.where(zero.float() > low, torch.where(zero > 0, bits_of - 1, bits_of + 1).view(torch.float16), zero)
    exact = (high - zero.float()) / (2**bits - 1)
    step = exact.half()
    step = torch.where(step.float() < exact, (step.view(torch.int16) + 1).view(torch.float16), step)
    if not bool((zero.isfinite() & step.isfinite()).all()):
        largest = float(torch.maximum(low.abs(), high.abs()).max())
        raise ValueError(
            f"x: |x| up to {largest:.3g}; group ranges are stored in float16, whose limit is 65504. Leave it unquantised."
        )
    return zero, step


def _codes(x: torch.Tensor, zero: torch.Tensor, step: torch.Tensor, bits: int) -> torch.Tensor:
    step = step.float()
    codes = (x - zero.float()) / step.masked_fill(step == 0, math.inf)
    return codes.round_().clamp_(0, 2**bits - 1).to(torch.uint8)
