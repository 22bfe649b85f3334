"""Gates in a running model, through hooks: drawn anew for every token while they train, or fixed as what stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.methods.weights.vtrans.network import Gates

Multiply = Callable[[str, int | None, Tensor], Tensor]
"""Gates one kind of unit of one layer (None: the width, of all layers): activations [..., n] -> the same, gated."""


@contextmanager
def placed(model: PreTrainedModel, gates: Gates, multiply: Multiply, count: Tensor) -> Iterator[None]:
    """Gate `model` meanwhile: the embedding's output, what attention and FFN add to the stream, every KV head's outputs,
    every neuron. Norms take their mean over `count` channels, those that stay.
    """
    family, sizes = family_of(model), gates.sizes
    stack: Any = family.stack(model)

    def width(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return multiply("width", None, output)

    def heads(layer: int) -> Callable[..., tuple[Tensor]]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            by_head = args[0].unflatten(-1, (sizes.heads, -1)).transpose(-1, -2)  # [B, T, queries * Dh, Hkv]
            return (multiply("heads", layer, by_head).transpose(-1, -2).flatten(-2),)

        return hook

    def neurons(layer: int) -> Callable[..., tuple[Tensor]]:
        return lambda module, args: (multiply("neurons", layer, args[0]),)

    with ExitStack() as hooks:
        hooks.callback(stack.embed_tokens.register_forward_hook(width).remove)
        for number, layer in enumerate(stack.layers):
            for module, name, within in ((layer.self_attn, "o_proj", heads), (layer.mlp, "down_proj", neurons)):
                projection = getattr(module, name)
                hooks.callback(projection.register_forward_pre_hook(within(number)).remove)
                hooks.callback(projection.register_forward_hook(width).remove)
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                hooks.callback(norm.register_forward_hook(_over(count)).remove)
        hooks.callback(stack.norm.register_forward_hook(_over(count)).remove)
        yield


def drawn(gates: Gates) -> Multiply:
    """``x * (mu + sigma * eps)``, with eps of its own for every row and unit."""

    def multiply(name: str, layer: int | None, x: Tensor) -> Tensor:
        mu, sigma = gates.mu[name], torch.exp(0.5 * gates.logvar[name])
        mu, sigma = (mu, sigma) if layer is None else (mu[layer], sigma[layer])
        rows = x[..., :1, :] if name == "heads" else x  # all channels of a head share its gate
        return x * (mu + sigma * torch.randn_like(rows)).to(x.dtype)

    return multiply


def fixed(gates: Gates, kept: dict[str, Tensor]) -> Multiply:
    """``x * mu`` for the units `kept`, bool by name, and 0 for all others."""

    def multiply(name: str, layer: int | None, x: Tensor) -> Tensor:
        gate = gates.mu[name] * kept[name]
        return x * (gate if layer is None else gate[layer]).to(x.dtype)

    return multiply


def _over(count: Tensor) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    """RMSNorm whose mean is over `count` channels; those that are gone are zero, or nearly so."""

    def hook(norm: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0].float()
        scale = torch.rsqrt(x.square().sum(-1, keepdim=True) / count + norm.variance_epsilon)
        return (norm.weight.float() * x * scale).to(output.dtype)

    return hook
