"""The learned part of LoCoCo: one convolution and one scalar per layer that fold entries into slots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from laconic.artifact import Artifact
from laconic.ops.select import best


class Mixer(nn.Module):
    """Mixing weights of one layer, the same for all its heads (arXiv 2406.05317, section 4).

    ``W = (1 - nu) R + nu P``: R is one-hot and keeps the best entries, P comes from the convolution over the token axis of
    concatenated keys and values, whose output channel is the slot. Parameters: ``channels * slots * kernel + slots + 1``.

    Args:
        channels: of a key and a value together.
        slots: entries that come out.
        kernel: width of the convolution, odd.
    """

    def __init__(self, channels: int, slots: int, kernel: int = 21):
        super().__init__()
        self.conv = nn.Conv1d(channels, slots, kernel, padding=kernel // 2)
        self.nu = nn.Parameter(torch.tensor(0.5))

    def weights(self, keys: torch.Tensor, values: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        """keys [B, Hkv, n, D], values, score [B, Hkv, n] -> W [B, Hkv, slots, n], fp32; every row sums to 1."""
        b, h, n = score.shape
        slots = self.conv.out_channels
        x = torch.cat([keys, values], -1).float().reshape(b * h, n, -1).transpose(1, 2)
        learned = F.relu(self.conv(x)).softmax(-1).view(b, h, slots, n)
        places = best(score, slots).nonzero()[:, -1].view(b, h, slots)
        return (1 - self.nu) * F.one_hot(places, n) + self.nu * learned

    def forward(self, keys: torch.Tensor, values: torch.Tensor, score: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """keys [B, Hkv, n, D], values, score [B, Hkv, n], n >= slots -> mixed keys and values [B, Hkv, slots, D]."""
        weights = self.weights(keys, values, score)
        return (weights @ keys.float()).to(keys.dtype), (weights @ values.float()).to(values.dtype)


def compress(
    keys: torch.Tensor, values: torch.Tensor, score: torch.Tensor, mixer: Mixer, heavy: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """keys [B, Hkv, n, D], values, score [B, Hkv, n] -> heavy + slots of them: the `heavy` best as they are, in order, then
    mixtures of the rest; and the places of the heavy ones, [B, Hkv, heavy]."""
    order = best(score, heavy).int().argsort(dim=-1, descending=True, stable=True)
    front, rest = order[..., :heavy], order[..., heavy:]
    mixed_keys, mixed_values = mixer(_at(keys, rest), _at(values, rest), score.gather(2, rest))
    return torch.cat([_at(keys, front), mixed_keys], 2), torch.cat([_at(values, front), mixed_values], 2), front


def _at(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Entries `index` [B, Hkv, m] of x [B, Hkv, n, D]."""
    return x.gather(2, index[..., None].expand(*index.shape, x.shape[-1]))


def learned_slots(memory: int, keep_rate: float) -> int:
    """Slots of a memory of M entries that are mixtures, m_c; the other M - m_c hold heavy hitters."""
    return int(memory * (1 - keep_rate))


def load(artifact: Artifact) -> nn.ModuleList:
    """The mixers of all compressed layers, in order, fp32 and frozen."""
    layers = nn.ModuleList()
    while (name := f"{len(layers)}.conv.weight") in artifact.tensors:
        slots, channels, kernel = artifact.tensors[name].shape
        layers.append(Mixer(channels, slots, kernel))
    return artifact.restore(layers)


def slots_of(layers: nn.ModuleList) -> int:
    """Slots m_c of the memory that these mixers fill."""
    mixer = layers[0]
    assert isinstance(mixer, Mixer)
    return mixer.conv.out_channels
