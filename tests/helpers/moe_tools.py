"""Tiny mixtures of experts of the real classes, whose routers decide."""

import torch

from helpers.zoo import Tiny

MIXTRAL = Tiny("Mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2, "num_hidden_layers": 2, "sliding_window": None})
QWEN = Tiny(
    "Qwen3Moe",
    {
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "num_hidden_layers": 2,
        "norm_topk_prob": True,
    },
)


def moe(kind, **changes):
    """A model whose 3-D weights are drawn, too."""
    model = kind.build(**changes)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        if parameter.ndim == 3:
            parameter.data.normal_(0, 0.2, generator=generator)
    return model
