"""A part that attends by rank: every key is placed at its rank among the stored ones, not where it once was in the text.

Streaming far beyond the trained length needs this (arXiv 2309.17453, section 3.2): the newest query looks
back over n positions at most, however many tokens have passed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from laconic.cache.observe import Observation, Rotary, rotate
from laconic.cache.parts.base import DensePart
from laconic.errors import SessionError
from laconic.ops.attend import attend

if TYPE_CHECKING:
    from laconic.cache.layer import CompressedLayer
    from laconic.step import Step


class RankedPart(DensePart):
    """Dense storage of keys as they came, RoPE applied; `attend` rotates them by ``rank - position`` each time.

    Always rotating from the stored keys accumulates no error, at the price of one rotation of all keys per pass. Columns:
    `index` (the token), `position` (its RoPE position when it came), `rank` (its place among the real entries of its head;
    evicting code closes the gap).
    """

    kind = "ranked"
    layer: CompressedLayer | None = None

    @classmethod
    def of(cls, part: DensePart, layer: CompressedLayer) -> RankedPart:
        """The same storage, attended by rank; `part` must hold the three columns and must not be used afterwards."""
        ranked = cls.__new__(cls)
        ranked.__dict__.update(part.__dict__)
        ranked.link(layer)
        return ranked

    def link(self, layer: CompressedLayer) -> None:
        self.layer = layer

    def attend(self, q: torch.Tensor, scale: float, softcap: float | None) -> tuple[torch.Tensor, torch.Tensor]:
        """q [B, H, T, D] sees every stored entry -> output [B, H, T, Dv], lse [B, H, T]."""
        layer = self._linked()
        step, rotary = layer.cache.step, partial(layer.cache.phases, layer.number)
        assert step is not None
        columns = self.columns
        before = self._past(step) + layer.drafts.length
        q = turned(q, before + _places(step.valid, q) - step.position_ids[:, None], rotary)
        keys = turned(self.keys, columns["rank"] - columns["position"], rotary)
        return attend(q, keys, self.values, scale, bias=self.bias(), softcap=softcap)

    def append(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> None:
        """Add entries after the stored ones; their ranks continue where those end."""
        step, valid = self._linked().cache.step, columns.get("valid")
        assert step is not None
        rank = self._linked().lengths.to(keys.device)[..., None] + _places(None if valid is None else valid[:, 0], keys)
        position = step.position_ids[:, None].expand(keys.shape[:3])
        super().append(keys, values, {**columns, "rank": rank.expand(keys.shape[:3]), "position": position})

    def followed_by(self, keys: torch.Tensor, values: torch.Tensor, columns: dict[str, torch.Tensor]) -> RankedPart:
        """Ranks run on over all parts of the layer."""
        part = RankedPart.of(DensePart(keys[:, :, :0], values[:, :, :0], {}, room=keys.shape[2]), self._linked())
        part.append(keys, values, columns)
        return part

    def _past(self, step: Step) -> torch.Tensor:
        """Entries of the whole layer that were there before this pass, [B, Hkv, 1]."""
        count: torch.Tensor | int = 0
        for part in self._linked().parts:
            columns = part.padded()[2]
            past = columns["index"] < step.start
            count = count + (past & columns["valid"] if "valid" in columns else past).sum(-1, keepdim=True)
        assert isinstance(count, torch.Tensor)
        return count

    def _linked(self) -> CompressedLayer:
        if self.layer is None:
            raise SessionError("a ranked part works only inside its layer: call part.link(layer) after loading it.")
        return self.layer


def by_rank(obs: Observation, rank: torch.Tensor, position: torch.Tensor) -> Observation:
    """What `RankedPart.attend` saw: the observation with all keys (and the queries of this pass) rotated to their ranks.

    Args:
        rank, position: of all entries, the T new ones last, [B, Hkv, n].
    """
    turn = rank - position
    keys = turned(obs.keys, turn, obs.rotary)
    return replace(obs, queries=turned(obs.queries, turn[..., -obs.new :], obs.rotary), keys=keys)


def token_positions(obs: Observation) -> torch.Tensor:
    """RoPE positions of all entries after a prefill pass, [B, Hkv, n]: the column where it is stored, else counted back from
    the newest token (correct unless padding lies between the turns of a row)."""
    newest = obs.step.position_ids[:, None, -1:]
    if "position" not in obs.columns:
        return obs.index - obs.index[..., -1:] + newest
    known = obs.columns["position"]
    new = obs.step.position_ids[:, None].expand(*known.shape[:2], -1)
    return torch.cat([known, new], -1)


def turned(x: torch.Tensor, turn: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """x [B, H, n, D] rotated further by `turn` positions, [B, Hkv, n] (H a multiple of Hkv); lengths stay."""
    (b, h, n, d), heads = x.shape, turn.shape[1]
    cos, sin = rotary(turn.reshape(b * heads, n))
    factor = (cos[..., :1, :1] ** 2 + sin[..., :1, :1] ** 2).sqrt()  # YaRN's attention factor is in x already
    out = rotate(x.reshape(b * heads, h // heads, n, d).float(), cos / factor, sin / factor)
    return out.reshape(b, h, n, d).to(x.dtype)


def _places(valid: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Places 0, 1, ... of the new real tokens of x [B, H, T, D] among themselves, [B or 1, 1, T]."""
    if valid is None:
        return torch.arange(x.shape[2], device=x.device)[None, None]
    return (valid.cumsum(-1) - 1).clamp(min=0)[:, None]
