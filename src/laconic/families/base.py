"""What a family adapter knows about a model, and how the adapter for a model is found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate.utils import align_module_device
from torch import nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families import refusals
from laconic.families.rotary import phases
from laconic.families.wrappers import unwrapped

_REGISTRY: dict[str, Family] = {}


@dataclass(frozen=True)
class Family:
    """Where the parts of a decoder are.

    Attributes:
        name: for messages.
        model_types: `config.model_type` values of the text stack that it covers.
        half_rope: RoPE rotates channel i with channel i + D/2 (needed by methods that undo RoPE).
        proven: tested on the real class; False for the generic adapter.
    """

    name: str
    model_types: tuple[str, ...] = ()
    half_rope: bool = True
    proven: bool = True

    def stack(self, model: nn.Module) -> PreTrainedModel:
        """The text decoder: the module that owns `.layers` and `.rotary_emb`."""
        stack: nn.Module = model
        while not isinstance(getattr(stack, "layers", None), nn.ModuleList):
            names = filter(None, ("language_model", "model", "decoder", getattr(stack, "base_model_prefix", "")))
            children = [getattr(stack, name, None) for name in names]
            inner = next((child for child in children if isinstance(child, nn.Module)), None)
            if inner is None:
                raise refusals.no_decoder(model)
            stack = getattr(inner, "_orig_mod", inner)  # a decoder that was compiled alone
        if not isinstance(stack, PreTrainedModel):
            raise UnsupportedModelError(f"{type(stack).__name__} is not a transformers PreTrainedModel; laconic needs one.")
        return stack

    def check_undoing(self, stack: PreTrainedModel, method: str) -> None:
        """Refuse to undo RoPE for `method` where it is not one half-split rotation per token.

        Raises:
            UnsupportedModelError: several positions per token (M-RoPE), or a layout that is not known.
        """
        kind = stack.config.model_type
        if "mrope_section" in (getattr(stack.config, "rope_parameters", None) or {}):
            reason = f"tokens of {kind} have several positions each (M-RoPE)"
        elif not self.half_rope:
            reason = f"laconic does not know how {kind} lays out its rotary channels"
        else:
            return
        raise UnsupportedModelError(
            f"{method} undoes RoPE, and {reason}; choose a method that uses queries and keys as they are, such as one that "
            "looks at attention."
        )

    def layers(self, model: nn.Module) -> nn.ModuleList:
        """The decoder's layers."""
        layers = self.stack(model).layers
        assert isinstance(layers, nn.ModuleList)
        return layers

    def attention(self, layer: nn.Module) -> nn.Module:
        """The attention module of a decoder layer.

        Raises:
            UnsupportedModelError: the layer has no `self_attn`.
        """
        attention = getattr(layer, "self_attn", None)
        if not isinstance(attention, nn.Module):
            raise UnsupportedModelError(
                f"{type(layer).__name__} has no `self_attn`, so what its attention reads cannot be seen; choose a method "
                "that reads no hidden states."
            )
        return attention

    def output_gram(self, layer: nn.Module) -> torch.Tensor:
        """``W_h^T W_h`` of every query head's slice W_h [hidden, Dv] of the output projection, fp32 [H, Dv, Dv]: with it
        ``||W_h v||^2 = v^T (W_h^T W_h) v`` costs Dv^2 instead of hidden * Dv.

        Raises:
            UnsupportedModelError: the attention has no `o_proj` with a weight of its own.
        """
        attention = self.attention(layer)
        projection = getattr(attention, "o_proj", None)
        weight = getattr(projection, "weight", None)
        if not isinstance(projection, nn.Module) or not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            raise UnsupportedModelError(
                f"{type(attention).__name__} has no `o_proj` with a floating-point weight, which the size of a value's "
                "contribution is measured with; choose a method that does not read it."
            )
        heads = attention.config.num_attention_heads  # type: ignore[union-attr]
        with align_module_device(projection):  # an offloaded weight is there only meanwhile
            weight = projection.weight
            assert isinstance(weight, torch.Tensor)
            slices = weight.detach().float().unflatten(1, (heads, -1)).transpose(0, 1)
            return slices.transpose(1, 2) @ slices

    def cos_sin(
        self, stack: PreTrainedModel, layer: int, positions: torch.Tensor, within: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin of RoPE at `positions` [B, m] for decoder layer `layer`, fp32 [B, m, D_rot], by the frequencies of a
        pass over the positions `within`; None: of the latest pass."""
        self.check_undoing(stack, "this method")
        x = torch.zeros(1, device=positions.device)
        return phases(stack.rotary_emb, x, positions, within=within)  # type: ignore[arg-type]


GENERIC = Family("generic", half_rope=False, proven=False)


def add(family: Family) -> Family:
    """Register a family for all its model types."""
    for model_type in family.model_types:
        _REGISTRY[model_type] = family
    return family


def supported_families() -> list[Family]:
    """Families that have their own adapter, by name."""
    return sorted(set(_REGISTRY.values()), key=lambda f: f.name)


def family_of(model: nn.Module) -> Family:
    """The adapter for a model: by the model type of its text stack, else the generic one.

    Raises:
        UnsupportedModelError: the model is not supported; the message says why (`laconic.families.refusals`).
    """
    model = unwrapped(model)
    refusals.check_class(model, ", ".join(f.name for f in supported_families()))
    stack = GENERIC.stack(model)
    refusals.check_decoder(stack)
    return _REGISTRY.get(stack.config.model_type, GENERIC)
