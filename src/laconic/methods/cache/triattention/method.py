"""TriAttention: eviction while decoding, by where the queries of a head usually point (arXiv 2604.04921)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from laconic import checks
from laconic.artifact import Artifact
from laconic.cache.contract import CacheMethod
from laconic.cache.layer import CompressedLayer
from laconic.cache.observe import Observation, rotate
from laconic.cache.parts.base import DensePart
from laconic.errors import ArtifactError
from laconic.method import register

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OFFSETS = tuple(2**i for i in range(17))
"""How far ahead the coming queries stand: 1, 2, 4, ... 65,536 tokens."""


@register(
    "triattention",
    site="cache",
    mechanism="eviction while decoding",
    source="arXiv 2604.04921",
    query_aware=False,
    training="calibration",
    inferred="the prompt competes, too, and is cut after it was read (protect= keeps it); a cut falls on every 128th token "
    "that was seen; channels that RoPE does not turn count by the mean query; each layer chooses by itself, as in the "
    "paper, where the release shares one list among layers",
)
@dataclass(kw_only=True)
class TriAttention(CacheMethod):
    """Score keys against the queries of all coming positions, which no live query is needed for, and cut every 128 tokens.

    Before RoPE the queries of a head lie around one centre c, whatever the text. So the logit of a key at distance D from a
    coming query is known up to their spread: with k the key, both as complex numbers per frequency w,
    ``S(D) = sum_f |c||k| cos(w D + arg c - arg k) + (m - |c|) |k|``, m the mean length of the queries. The mean over
    distances growing in powers of two is standardised per query head; the largest of a group's heads counts.

    The centres were measured once per model: `laconic fit triattention`.

    Args:
        artifact: what `laconic fit triattention` wrote: a file, a shipped name, or a Hub id. None takes the one shipped for
            these weights.
        every: tokens from one cut to the next while decoding (128); up to so many more than the budget are held meanwhile.
    """

    artifact: str | None = None
    every: int = 128
    evicts_while_decoding = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "every", least=1)
        self._centre = self._size = torch.zeros(0)

    @property
    def undoes_rope(self) -> bool:
        return True

    def attach(self, model: PreTrainedModel) -> None:
        if self.neutral:
            return
        tensors = Artifact.find(self.name, model, self.artifact).tensors
        try:
            self._centre, self._size = tensors["centre"].float(), tensors["size"].float()
        except KeyError as error:
            raise ArtifactError(f"this artifact of triattention lacks {error}; make it again with `laconic fit`.") from error

    def due(self, layer: CompressedLayer) -> bool:
        return layer.seen % self.every == 0 and isinstance(layer.parts[-1], DensePart)

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        parts = self.reduce(layer, obs, {**layer.parts[-1].padded()[2], "index": obs.index})
        if parts is not None:
            layer.store(parts)

    def score(self, obs: Observation) -> torch.Tensor:
        """The stored keys are turned to their own positions, so the centre is turned to the coming ones: their product is
        the sum of cosines, and no rotation has to be undone."""
        device = obs.keys.device
        centre, size = self._centre[obs.layer].to(device), self._size[obs.layer].to(device)  # [H, D], [H, pairs]
        following = obs.step.position_ids[..., -1:] + 1 + torch.tensor(OFFSETS, device=device)
        cos, sin = obs.rotary(following)
        scale = (cos[..., :1, :1] ** 2 + sin[..., :1, :1] ** 2).float().sqrt()  # of YaRN, which the keys have, too
        centres = centre[None, :, None].expand(len(cos), -1, -1, -1)  # rows with padding stand at positions of their own
        ahead = rotate(centres, cos.float().mean(1, keepdim=True), sin.float().mean(1, keepdim=True))
        keys = obs.keys.float()
        pairs = keys[..., : 2 * size.shape[-1]].unflatten(-1, (2, -1)).square().sum(-2).sqrt()  # |k|, [B, Hkv, n, pairs]
        spread = (size - centre[:, : 2 * size.shape[-1]].unflatten(-1, (2, -1)).square().sum(-2).sqrt())[None] * scale
        b, hkv = keys.shape[:2]
        logits = torch.matmul(keys, ahead[:, :, 0].expand(b, -1, -1).unflatten(1, (hkv, -1)).mT)
        logits = logits + torch.matmul(pairs, spread.expand(b, -1, -1).unflatten(1, (hkv, -1)).mT)  # [B, Hkv, n, G]
        return _standard(logits, obs.valid).amax(-1)


def _standard(x: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """x [B, Hkv, n, G] less its mean over the n real entries, over its standard deviation (biased, 1e-6 at least)."""
    real = torch.ones(x.shape[:3], device=x.device) if valid is None else valid.float()
    real, count = real[..., None], real.sum(-1).clamp(min=1)[..., None, None]
    x = x - (x * real).sum(2, keepdim=True) / count
    return x / ((x.square() * real).sum(2, keepdim=True) / count).sqrt().clamp(min=1e-6)
