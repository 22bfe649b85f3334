"""The network of PVC: causal attention over time within the last encoder layers, and a compression that knows the step
(arXiv 2412.09613)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.errors import UnsupportedModelError
from laconic.families.vision import vision_family_of
from laconic.families.vision.encoder import layers_of, tower_of
from laconic.stream.readout import readout

Order = Literal["causal", "both", "none"]
ORDERS: tuple[str, ...] = get_args(Order)
CODE = 256
"""Width of a step's code."""
Past = tuple[Tensor, Tensor]
"""Keys and values of earlier frames, [B, N, H, t, d] each."""


def code(steps: Tensor) -> Tensor:
    """Sin-cos code of steps [T], [T, CODE]."""
    rates = 10000.0 ** -(torch.arange(CODE // 2, device=steps.device) / (CODE // 2))
    angles = steps[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Modulation(nn.Module):
    """``x (1 + s(c)) + b(c)`` with s and b linear maps of SiLU(c), zero at first; AdaLN where x is normalised before."""

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x [B, T, N, C], c [T, C]."""
        scale, shift = self.out(F.silu(c))[None, :, None].chunk(2, -1)
        out: Tensor = x * (1 + scale) + shift
        return out


class TemporalAttention(nn.Module):
    """``gate * MHA(AdaLN(x; c))`` over the frames at each place by itself; the gate is 0 at first.

    Args:
        width: C. `heads`: of the attention. `order`: "causal", or for comparison "both" directions.
        window: frames that a frame sees, itself included.
    """

    def __init__(self, width: int, heads: int, order: Order, window: int):
        super().__init__()
        self.heads, self.order, self.window = heads, order, window
        self.norm, self.modulation = nn.LayerNorm(width, elementwise_affine=False), Modulation(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, c: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """x [B, T, N, C] after `past` frames, c [T, C] -> what is added to x, and the past of the frames to come."""
        length = x.shape[1]
        u = self.qkv(self.modulation(self.norm(x), c)).transpose(1, 2)  # [B, N, T, 3 C]
        q, k, v = u.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)  # [B, N, H, T, d] each
        if past is not None:
            k, v = torch.cat([past[0], k], -2), torch.cat([past[1], v], -2)
        age = torch.arange(k.shape[-2] - length, k.shape[-2], device=x.device)[:, None]
        age = age - torch.arange(k.shape[-2], device=x.device)
        near = age.abs() < self.window
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=near if self.order == "both" else near & (age >= 0))
        out = self.gate * self.out(y.permute(0, 3, 1, 2, 4).flatten(-2))
        keep = self.window - 1
        return out, (k[..., max(0, k.shape[-2] - keep) :, :], v[..., max(0, v.shape[-2] - keep) :, :])


class Progressive(nn.Module):
    """The last encoder layers of a frozen model with temporal attention, and tokens of their output.

    Args:
        model: whose encoder layers run, unchanged. `layers`: how many of the last ones that features pass get temporal
            attention.
        blocks: patches a side that become one token, one readout for each.
        window: frames that a frame sees; later ones all have the step ``window - 1``.
        order: of the temporal attention; "none": there is none (an ablation).
        steps: False: nothing is told the step (an ablation).
    """

    def __init__(
        self, model: PreTrainedModel, layers: int, blocks: Sequence[int], window: int, order: Order, steps: bool = True
    ):
        super().__init__()
        family = vision_family_of(model)
        tower = family.tower(model)
        width, heads = int(tower.config.hidden_size), int(tower.config.num_attention_heads)
        last = family.feature_layer(model)
        if not 1 <= layers <= last + 1:
            raise ValueError(f"pvc: layers={layers}: features pass {last + 1} encoder layers; choose 1 to {last + 1}.")
        self.first, self.count = last + 1 - layers, layers
        self.cls, self.side = int(family.has_cls(model)), family.side(model)
        if wrong := [block for block in blocks if self.side % block]:
            raise ValueError(f"pvc: blocks={wrong[0]} does not divide the {self.side} patches of a side.")
        self.window, self.steps = window, steps
        self.clock = nn.Sequential(nn.Linear(CODE, width), nn.SiLU(), nn.Linear(width, width))
        attended = [] if order == "none" else [TemporalAttention(width, heads, order, window) for _ in range(layers)]
        self.temporal = nn.ModuleList(attended)
        self.modulation = Modulation(width)
        self.read = nn.ModuleDict({str(block): shuffled(readout(model), block) for block in blocks})

    def forward(
        self, tower: Any, states: Tensor, block: int, start: int = 0, past: list[Past] | None = None
    ) -> tuple[Tensor, list[Past]]:
        """Tokens of frames [B, T, m, D], and the past of those to come.

        Args:
            tower: the model's encoder. `block`: patches a side of a token.
            states: before encoder layer `first`, with CLS where there is one, [B, T, N, C].
            start: number of the first frame in its video. `past`: of the frames before it, by layer.
        """
        steps = torch.arange(start, start + states.shape[1], device=states.device).clamp(max=self.window - 1)
        c = self.clock(code(steps if self.steps else torch.zeros_like(steps)))
        x, kept = states, []
        for number, layer in enumerate(plain_layers(tower)[self.first : self.first + self.count]):
            flat = layer.layer_norm1(x.flatten(0, 1))
            x = x + layer.self_attn(flat, attention_mask=None)[0].view_as(x)
            if len(self.temporal):
                added, seen = self.temporal[number](x.float(), c, None if past is None else past[number])
                x = x + added.to(x)
                kept.append(seen)
            x = x + layer.mlp(layer.layer_norm2(x))
        patches = self.modulation(x[:, :, self.cls :].float(), c)
        tokens: Tensor = self.read[str(block)](unshuffle(patches, self.side, block))
        return tokens, kept


def unshuffle(patches: Tensor, side: int, block: int) -> Tensor:
    """Patches [B, T, side^2, C] as blocks in raster order, each the patches of block x block side by side,
    [B, T, (side / block)^2, block^2 C]."""
    few = side // block
    grid = patches.unflatten(2, (few, block, few, block))  # [B, T, few, block, few, block, C]
    return grid.transpose(3, 4).flatten(4, 6).flatten(2, 3)


def shuffled(projector: nn.Sequential, block: int) -> nn.Sequential:
    """A readout of block x block patches that begins as `projector` on their mean."""
    first = projector[0]
    assert isinstance(first, nn.Linear)
    wide = nn.Linear(first.in_features * block**2, first.out_features, bias=first.bias is not None)
    with torch.no_grad():
        wide.weight.copy_(first.weight.repeat(1, block**2) / block**2)
        if first.bias is not None:
            wide.bias.copy_(first.bias)
    return nn.Sequential(wide, *list(projector)[1:])


def plain_layers(tower: nn.Module) -> Any:
    """The encoder's layers.

    Raises:
        UnsupportedModelError: layers that are not attention and MLP, each after a norm, as those of CLIP and SigLIP.
    """
    layers, parts = layers_of(tower), ("layer_norm1", "self_attn", "layer_norm2", "mlp")
    if tower_of(tower).fused or any(not hasattr(layers[0], part) for part in parts):
        raise UnsupportedModelError(
            f"pvc puts attention over time between the parts {', '.join(parts)} of an encoder layer, and those of "
            f"{type(tower).__name__} are others; encoders of the CLIP and SigLIP kind have them."
        )
    return layers


def load(artifact: Artifact, model: PreTrainedModel) -> Progressive:
    """The trained network, in fp32 and frozen."""
    data = artifact.data
    plain_layers(vision_family_of(model).tower(model))
    return artifact.restore(Progressive(model, data["layers"], data["blocks"], data["window"], data["order"], data["steps"]))
