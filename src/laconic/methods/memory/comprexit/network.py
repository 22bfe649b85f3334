"""ComprExIT's network: depth-wise fusion of all layers, transport to slots, and a projector (steps 2 to 9)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.measure.cost import Shape
from laconic.memory.compressor import Compressor, decoder_flops
from laconic.memory.pooling import group_means
from laconic.methods.memory.comprexit.transport import sinkhorn

TEMPERATURE = 0.7
UNIFORM = 0.05
"""Share of the token masses that is the same for all."""


class Fusion(nn.Module):
    """One anchor per token from its states after all layers, by attention over the layers: [B, n, L, d] -> [B, n, d].

    Args:
        layers: L, the embedding output included. `size`: d. `width`: of queries and keys.
    """

    def __init__(self, layers: int, size: int, width: int):
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(layers))
        self.query, self.key, self.value = nn.Linear(size, width), nn.Linear(size, width), nn.Linear(size, size)
        self.layer = nn.Parameter(0.02 * torch.randn(layers, width))

    def forward(self, states: Tensor) -> Tensor:
        query = self.query(torch.einsum("l,bnld->bnd", self.mix.softmax(0), states))
        keys = self.key(states) + self.layer
        scores = torch.einsum("bnd,bnld->bnl", query, keys) / keys.shape[-1] ** 0.5
        # values are linear in the states, so the weighted sum may come first
        return self.value(torch.einsum("bnl,bnld->bnd", (scores / TEMPERATURE).softmax(-1), states))  # type: ignore[no-any-return]


class Transport(nn.Module):
    """Anchors of one window to slots by an optimal-transport plan: [B, n, d] -> [B, slots, d]."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.cost_norm, self.value_norm, self.mass_norm = nn.LayerNorm(size), nn.LayerNorm(size), nn.LayerNorm(size)
        self.cost, self.value, self.mass = nn.Linear(size, width), nn.Linear(size, size), nn.Linear(size, 1)
        nn.init.zeros_(self.mass.weight)
        nn.init.zeros_(self.mass.bias)

    def forward(self, anchors: Tensor, slots: int) -> Tensor:
        values = self.value(self.value_norm(anchors))
        return slots * torch.einsum("bij,bid->bjd", self.plan(anchors, slots), values)  # division by the capacity 1 / slots

    def plan(self, anchors: Tensor, slots: int) -> Tensor:
        """How much of each token every slot gets, [B, n, slots]; it adds up to 1."""
        seeds = group_means(anchors, slots)
        tokens, wanted = (F.normalize(self.cost(self.cost_norm(x)), dim=-1) for x in (anchors, seeds))
        cost = 1 - tokens @ wanted.transpose(1, 2)
        masses = (1 - UNIFORM) * self.masses(anchors) + UNIFORM / anchors.shape[1]
        return sinkhorn(cost, masses, masses.new_full((len(masses), slots), 1 / slots))

    def masses(self, anchors: Tensor) -> Tensor:
        """Learned masses of the tokens, [B, n], before the uniform share is mixed in."""
        return self.mass(self.mass_norm(anchors))[..., 0].softmax(-1)  # type: ignore[no-any-return]


class TransportedSlots(Compressor):
    """``projector(transport(fusion(all hidden states)))`` of one window.

    Args:
        width: of queries, keys and costs (256; 32 does for small models).
    """

    def __init__(self, model: PreTrainedModel, segment: int, width: int):
        super().__init__(segment)
        config = model.config.get_text_config()
        size = config.hidden_size
        self.fusion = Fusion(config.num_hidden_layers + 1, size, width)
        self.transport = Transport(size, width)
        self.projector = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))
        for parameter in self.projector.parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter, gain=0.4)
            else:
                nn.init.zeros_(parameter)

    def forward(self, model: PreTrainedModel, ids: Tensor, slots: int) -> Tensor:
        with torch.no_grad():
            stack = family_of(model).stack(model)
            states = stack(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        anchors = self.fusion(torch.stack(states, 2).float())
        return self.projector(self.transport(anchors, slots))  # type: ignore[no-any-return]

    def flops(self, shape: Shape, tokens: int, slots: int) -> int:
        fusion, transport = self.fusion, self.transport
        every = fusion.query.weight.numel() + len(fusion.mix) * fusion.key.weight.numel() + fusion.value.weight.numel()
        every += transport.cost.weight.numel() + transport.value.weight.numel() + transport.mass.weight.numel()
        slot = transport.cost.weight.numel() + sum(p.numel() for p in self.projector.parameters() if p.ndim == 2)
        pairs = transport.cost.out_features + transport.value.out_features
        return decoder_flops(shape, tokens) + 2 * (tokens * every + slots * slot + tokens * slots * pairs)
