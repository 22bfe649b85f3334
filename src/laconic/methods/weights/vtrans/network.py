"""VTrans's gates: a mean and a variance for everything that can be removed, and what they cost (arXiv 2406.05276).

A gate multiplies by ``z = mu + sigma * eps``. A unit whose noise is larger than its signal, ``ln(sigma^2 / mu^2) > 0``,
can go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families import family_of

MAPS = {"self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")}


@dataclass(frozen=True)
class Sizes:
    """Of a decoder: layers, residual width, KV heads, query heads per KV head, channels of a head, neurons."""

    layers: int
    width: int
    heads: int
    queries: int
    head_dim: int
    neurons: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Sizes:
        """The sizes of `model`.

        Raises:
            UnsupportedModelError: its layers are not laid out like those of Llama.
        """
        stack = family_of(model).stack(model)
        config = stack.config
        for layer in stack.layers:  # type: ignore[union-attr]
            maps = {name: getattr(getattr(layer, part, None), name, None) for part, names in MAPS.items() for name in names}
            wrong = [name for name, found in maps.items() if not isinstance(found, nn.Linear)]
            biased = [name for name in ("o_proj", "down_proj") if not wrong and maps[name].bias is not None]  # type: ignore[union-attr]
            if wrong or biased or hasattr(layer, "pre_feedforward_layernorm"):
                reason = f"has no linear map {wrong[0]}" if wrong else "has biases or norms after its maps"
                raise UnsupportedModelError(
                    f"vtrans: {type(layer).__name__} {reason}; gates fit layers like those of Llama, Qwen2 and Mistral only."
                )
        heads = config.num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        queries = config.num_attention_heads // heads
        return cls(len(stack.layers), config.hidden_size, heads, queries, head_dim, config.intermediate_size)  # type: ignore[arg-type]

    def parameters(self, width: Any, heads: Any, neurons: Any) -> Any:
        """Of all layers, when `width` residual channels stay, and of each layer so many KV heads and neurons: numbers, or
        tensors [layers] for the last two. Matrices and the two norms; MHA has ``4 Dh heads width``."""
        attention = (2 * self.queries + 2) * self.head_dim * heads * width
        each = attention + 3 * neurons * width + 2 * width
        return each.sum() if isinstance(each, Tensor) and each.ndim else each * self.layers

    @property
    def dense(self) -> int:
        """Parameters of all layers as they are."""
        return int(self.parameters(self.width, self.heads, self.neurons))


class Gates(nn.Module):
    """``mu`` and ``logvar`` of the residual width [D], of every layer's KV heads [L, Hkv] and neurons [L, F], and the two
    multipliers of the constraint."""

    def __init__(self, sizes: Sizes, logvar: float = -9.0, sharpness: float = 10.0):
        super().__init__()
        self.sizes, self.sharpness = sizes, sharpness
        shapes = {"width": (sizes.width,), "heads": (sizes.layers, sizes.heads), "neurons": (sizes.layers, sizes.neurons)}
        self.mu = nn.ParameterDict({name: 1 + 0.01 * torch.randn(shape) for name, shape in shapes.items()})
        self.logvar = nn.ParameterDict({name: logvar + 0.01 * torch.randn(shape) for name, shape in shapes.items()})
        self.multipliers = nn.Parameter(torch.zeros(2))

    def log_alpha(self, name: str) -> Tensor:
        """``logvar - ln(mu^2)``: noise over signal; units below 0 stay."""
        return self.logvar[name] - (self.mu[name].square() + 1e-8).log()

    def soft(self, name: str) -> Tensor:
        """How likely each unit stays, ``sigmoid(-b * log_alpha)``."""
        return torch.sigmoid(-self.sharpness * self.log_alpha(name))

    def kl(self, name: str) -> Tensor:
        """``0.5 * sum ln(1 + mu^2 / sigma^2)``, what the units say."""
        return 0.5 * torch.log1p(self.mu[name].square() / (self.logvar[name].exp() + 1e-8)).sum()

    def sparsity(self) -> Tensor:
        """The share of the layers' parameters that is expected to go."""
        left = self.sizes.parameters(self.soft("width").sum(), self.soft("heads").sum(-1), self.soft("neurons").sum(-1))
        return 1 - left / self.sizes.dense

    def hard_sparsity(self, threshold: float = 0.0) -> float:
        """The share that goes when exactly the units below the threshold stay, each layer with its own numbers."""
        counts = [(self.log_alpha(name) < threshold).sum(-1).double() for name in ("width", "heads", "neurons")]
        return 1 - float(self.sizes.parameters(*counts)) / self.sizes.dense
