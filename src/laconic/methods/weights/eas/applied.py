"""EAS in a model: layers without attention, adapters in their places, and both folded into copies of the weights.

A skipped layer is ``x + FFN(y * gamma2)`` with ``y = PIA(n1(x))``: no attention runs and no keys or values are stored. Kept
layers have an adapter before q, k and v.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families import family_of
from laconic.methods.weights.eas.network import Adapter, Adapters, Over

READERS = {"self_attn": ("q_proj", "k_proj", "v_proj"), "mlp": ("gate_proj", "up_proj")}
"""Children of a layer, and the maps in them that read their input."""


class Scale(nn.Module):
    """Multiplies channels by a norm's weights, without normalising."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.weight = norm.weight

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return x * self.weight  # type: ignore[operator]


class SkippedLayer(nn.Module):
    """A decoder layer without attention, ``x + FFN(adapter(n1(x)) * gamma2)``, which shares the modules of `layer`."""

    def __init__(self, layer: nn.Module, adapter: Adapter):
        super().__init__()
        self.input_layernorm, self.mlp = layer.input_layernorm, layer.mlp
        self.adapter: nn.Module = nn.Sequential(adapter, Scale(layer.post_attention_layernorm))  # type: ignore[arg-type]
        self.attention_type = getattr(layer, "attention_type", None)  # which mask it gets; it needs none

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states + self.mlp(self.adapter(self.input_layernorm(hidden_states)))  # type: ignore[operator]


class Children:
    """Children of modules that were replaced, and what was there before."""

    def __init__(self) -> None:
        self._before: list[tuple[nn.Module, str, nn.Module | None]] = []

    def put(self, module: nn.Module, name: str, child: nn.Module) -> None:
        """Replace one child of this instance."""
        self._before.append((module, name, module._modules[name]))
        module._modules[name] = child

    def restore(self) -> None:
        """Put back what was there, the last one first."""
        while self._before:
            module, name, child = self._before.pop()
            module._modules[name] = child


class Applied:
    """What `applied` gives: adapters that are in a model, running or folded into it."""

    def __init__(self, layers: nn.ModuleList, adapters: Adapters, originals: list[nn.Module], skip: Collection[int]):
        self._layers, self._adapters, self._originals, self._skip = layers, adapters, originals, skip
        self._folded = Children()

    def begin(self, over: Tensor | Over | None = None) -> None:
        """Another prompt comes: the adapters run, and take their means from the first pass.

        Args:
            over: tokens of the prompt [B, T] that the means run over, or what says so once a layer runs; None: all. The
                means see the whole prompt, later tokens included: in training, restrict them to what comes before the
                answer.
        """
        self._folded.restore()
        self._adapters.begin(over)

    @torch.no_grad()
    def fold(self) -> None:
        """Put the adapters into copies of the weights, for the prompt that ran last; `begin` takes them out.

        Only children of the layers are replaced: hooks on the layers stay. The model's own weights are not touched, and
        every fold starts from them.

        Raises:
            SessionError: no prompt has run, or several ran at once.
        """
        self._folded.restore()
        maps = [self._adapter(i).linear() for i in range(len(self._layers))]  # may raise, so before anything is replaced
        for i, (layer, original) in enumerate(zip(self._layers, self._originals, strict=True)):
            matrix, bias = maps[i]
            if i in self._skip:
                gamma: Any = original.post_attention_layernorm.weight  # type: ignore[union-attr]
                self._folded.put(layer, "adapter", nn.Identity())
                self._folded.put(layer, "mlp", _reading(original.mlp, "mlp", gamma[:, None] * matrix, gamma * bias))
            else:
                with_adapter: Any = layer.input_layernorm
                self._folded.put(layer, "input_layernorm", with_adapter[0])
                for name in READERS["self_attn"]:
                    attention: Any = original.self_attn
                    self._folded.put(attention, name, _into(getattr(attention, name), matrix, bias))

    def _adapter(self, layer: int) -> Adapter:
        found = (self._adapters.skipped if layer in self._skip else self._adapters.kept)[str(layer)]
        assert isinstance(found, Adapter)
        return found


@contextmanager
def applied(model: PreTrainedModel, adapters: Adapters, skip: Collection[int] | None = None) -> Iterator[Applied]:
    """While open, skipped layers of this model run without attention and all adapters are active, for one prompt; call
    `Applied.begin` before another one.

    Args:
        skip: layers to skip instead of `adapters.skip`, during a search.

    Raises:
        UnsupportedModelError: see `check_layout`.
    """
    layers = check_layout(model)
    chosen = set(adapters.skip if skip is None else skip)
    originals, changed = list(layers), Children()
    placed = Applied(layers, adapters, originals, chosen)
    try:
        for i, layer in enumerate(originals):
            if i in chosen:
                changed.put(layers, str(i), SkippedLayer(layer, adapters.skipped[str(i)]))  # type: ignore[arg-type]
            else:
                norm: Any = layer.input_layernorm
                changed.put(layer, "input_layernorm", nn.Sequential(norm, adapters.kept[str(i)]))
        placed.begin()
        yield placed
    finally:
        placed.begin()  # takes folded weights out, and forgets the prompt
        changed.restore()


def check_layout(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers.

    Raises:
        UnsupportedModelError: they are not laid out like those of Llama and Qwen2, their weights cannot be multiplied
            (quantised), or adapters are in them already.
    """
    layers = family_of(model).stack(model).layers
    assert isinstance(layers, nn.ModuleList)
    for layer in layers:
        reason = _misfit(layer)
        if reason:
            raise UnsupportedModelError(
                f"eas: {type(layer).__name__} of {type(model).__name__} {reason}; attention can be skipped in layers like "
                "those of Llama and Qwen2 only."
            )
    return layers


def _misfit(layer: nn.Module) -> str:
    """Why a layer cannot have adapters; empty if it can."""
    if isinstance(layer, SkippedLayer) or isinstance(getattr(layer, "input_layernorm", None), nn.Sequential):
        return "has EAS's adapters already"
    for part, names in READERS.items():
        for name in names:
            found = getattr(getattr(layer, part, None), name, None)
            if not isinstance(found, nn.Linear) or not found.weight.is_floating_point():
                return f"has no linear map {part}.{name} of floating-point weights"
    norm = getattr(layer, "post_attention_layernorm", None)
    if norm is None or hasattr(layer, "pre_feedforward_layernorm") or getattr(norm, "weight", None) is None:
        return "has other norms"
    with torch.no_grad():  # an RMSNorm makes its weights of ones; others add one to them, or a bias
        plain = torch.allclose(norm(torch.ones_like(norm.weight)).float(), norm.weight.float(), rtol=0.02, atol=1e-3)
    return "" if plain else "has a norm that does more than multiply by its weights"


def _reading(module: Any, part: str, matrix: Tensor, bias: Tensor) -> nn.Module:
    """A copy of `module` that shares everything except the maps that read its input; these read ``matrix x + bias``."""
    made = copy.copy(module)
    made._modules = dict(module._modules)
    for name in READERS[part]:
        made._modules[name] = _into(getattr(module, name), matrix, bias)
    return made  # type: ignore[no-any-return]


def _into(linear: nn.Linear, matrix: Tensor, bias: Tensor) -> nn.Linear:
    """x -> linear(matrix x + bias) as one map, multiplied in fp32."""
    weight = linear.weight.float()
    offset = weight @ bias.float()
    offset = offset if linear.bias is None else offset + linear.bias
    made = nn.Linear(linear.in_features, linear.out_features, device="meta")
    made.weight = nn.Parameter((weight @ matrix.float()).to(linear.weight), requires_grad=False)
    made.bias = nn.Parameter(offset.to(linear.weight), requires_grad=False)
    return made
