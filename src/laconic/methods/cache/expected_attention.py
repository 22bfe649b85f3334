"""ExpectedAttention: the attention that future queries are expected to pay (NVIDIA kvpress)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from laconic.cache.contract import CacheMethod
from laconic.cache.observe import Observation, rotate
from laconic.method import register

_BLOCK = 1024  # positions processed at a time: small enough for the CPU's caches


def _logits(keys: torch.Tensor, mean: torch.Tensor, sigma: torch.Tensor | None) -> torch.Tensor:
    """keys [B, Hkv, n, D], mean [B, Hkv, D, G], sigma [B, Hkv, D, G * D] -> k' mean + k' sigma k, [B, Hkv, n, G]."""
    logits = torch.matmul(keys, mean)
    if sigma is None:
        return logits
    spread = torch.matmul(keys, sigma).view(*logits.shape, -1)
    return logits + (spread * keys[:, :, :, None]).sum(-1)


@register(
    "expected_attention",
    site="cache",
    mechanism="eviction",
    source="NVIDIA kvpress; arXiv 2510.00636",
    query_aware=False,
    inferred="the statistics are those of the pass's own queries; with several chunks each chunk uses its own",
)
@dataclass(kw_only=True)
class ExpectedAttention(CacheMethod):
    """Model future queries as Gaussian, rotate them to the coming positions, and keep what they are expected to attend to.

    With mean ``mu`` and covariance ``Sigma`` of the queries before RoPE and ``R`` the mean rotation over the next `future`
    positions: ``s_j = softmax_j(mu' k_j / sqrt(d) + k_j' Sigma' k_j / (2 d))``, ``mu' = R mu``, ``Sigma' = R Sigma R'``;
    mean over the group; ``score = (s + epsilon) * ||v||``.

    Args:
        future: positions to average the rotation over (512).
        sinks: first tokens that always stay and are left out of the statistics (4).
        epsilon: added to the expected attention (0; 0.01 suits AdaKV).
        use_covariance: False leaves out Sigma.
        use_values: False leaves out the norm of the values.
    """

    future: int = 512
    sinks: int = 4
    epsilon: float = 0.0
    use_covariance: bool = True
    use_values: bool = True

    @property
    def undoes_rope(self) -> bool:
        return True

    def forced(self) -> tuple[int, int]:
        return self.sinks, 0

    def score(self, obs: Observation) -> torch.Tensor:
        mean, covariance = self._statistics(obs)
        b, hkv, _, d = obs.keys.shape
        mean = (mean * obs.scale).view(b, hkv, -1, d).transpose(-1, -2)
        sigma = None
        if covariance is not None:
            sigma = (covariance * obs.scale**2 / 2).view(b, hkv, -1, d, d).transpose(2, 3).reshape(b, hkv, d, -1)
        logits = torch.cat([_logits(keys.float(), mean, sigma) for keys in obs.keys.split(_BLOCK, 2)], 2)
        hidden = self._sinks(obs) if obs.valid is None else self._sinks(obs) | ~obs.valid
        expected = logits.masked_fill(hidden[..., None], float("-inf")).softmax(2).mean(-1) + self.epsilon
        if self.use_values:
            expected = expected * torch.linalg.vector_norm(obs.values, dim=-1, dtype=torch.float32)
        return expected

    def _sinks(self, obs: Observation) -> torch.Tensor:
        index = obs.index
        real = torch.ones_like(index, dtype=torch.bool) if obs.valid is None else obs.valid
        first = index.masked_fill(~real, torch.iinfo(index.dtype).max).amin(-1, keepdim=True)
        hidden = index < first + self.sinks
        return hidden & ~hidden.all(-1, keepdim=True)

    def _statistics(self, obs: Observation) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean [B, H, D] and covariance [B, H, D, D] of the queries, rotated to the coming positions."""
        b, h, t, d = obs.queries.shape
        device = obs.queries.device
        weight = torch.ones(b, t, device=device) if obs.step.valid is None else obs.step.valid.float()
        order = weight.cumsum(-1) + (torch.tensor(obs.step.real, device=device) - weight.sum(-1))[:, None]
        if bool((weight * (order > self.sinks)).any(-1).all()):  # a pass that has only sinks uses them all the same
            weight = weight * (order > self.sinks)
        weight = (weight / weight.sum(-1, keepdim=True).clamp(min=1))[:, None, :, None]
        mean = torch.zeros(b, h, d, device=device)
        second = torch.zeros(b, h, d, d, device=device)
        for queries, share in zip(obs.plain_blocks(_BLOCK), weight.split(_BLOCK, 2), strict=True):
            queries = queries.float()
            weighted = queries * share
            mean = mean + weighted.sum(2)
            if self.use_covariance:
                second = second + torch.matmul(weighted.transpose(-1, -2), queries)
        rotation = self._mean_rotation(obs, d)
        covariance = None
        if self.use_covariance:
            covariance = second - mean[..., :, None] * mean[..., None, :]
            covariance = rotation.transpose(-1, -2) @ covariance @ rotation
        return torch.matmul(mean[:, :, None], rotation)[:, :, 0], covariance

    def _mean_rotation(self, obs: Observation, d: int) -> torch.Tensor:
        """Mean of RoPE's rotation over the next positions, as a matrix for row vectors, [B or 1, 1, D, D]."""
        last = obs.step.position_ids[..., -1:]
        cos, sin = obs.rotary(last + 1 + torch.arange(self.future, device=last.device))
        mean_cos, mean_sin = cos.float().mean(1, keepdim=True), sin.float().mean(1, keepdim=True)
        eye = torch.eye(d, device=last.device).expand(mean_cos.shape[0], 1, d, d)
        return rotate(eye, mean_cos, mean_sin)
