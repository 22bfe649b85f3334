"""Layer dropping by block influence, as ShortGPT does it (arXiv 2403.03853)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from laconic.errors import BudgetError, UnsupportedModelError
from laconic.families import family_of
from laconic.fit.calibration import CalibrationFit
from laconic.method import register
from laconic.weights.edit import FittedEdit
from laconic.weights.restored import restored
from laconic.weights.walk import ROWS


@register(
    "layer_drop",
    site="weights",
    mechanism="layer dropping",
    source="arXiv 2403.03853",
    query_aware=False,
    training="calibration",
    inferred="layer 0 stays, where transformers counts positions",
    fit="laconic.methods.weights.layer_drop:LayerDropFit",
)
@dataclass(kw_only=True)
class LayerDrop(FittedEdit):
    """Remove the decoder layers that change the stream least over a text.

    What counts is block influence, ``1 - cos(x_l, x_l+1)`` on average over tokens (equation 1). Nothing is trained
    afterwards.

    ``keep`` is the share of the layers that stay, rounded to a whole number of them; layer 0 always does.

    Args:
        artifact: every layer's influence, as `laconic fit layer_drop` wrote it; `laconic bake` measures it by itself.
    """

    default_keep: ClassVar[float | None] = 0.9
    saves: ClassVar[str] = "bytes, FLOPs and time: layers that are gone neither run nor store keys and values"

    def prepare(self, model: PreTrainedModel) -> None:
        influence = self.found(model).data["influence"]
        assert self.keep is not None
        stay = round(self.keep * len(influence))
        if stay < 1:
            raise BudgetError(f"layer_drop: keep={self.keep} leaves none of {len(influence)} layers; keep more.")
        config = family_of(model).stack(model).config
        if getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1:
            raise UnsupportedModelError(
                "layer_drop: this configuration says by number which layers have experts, so layers cannot be renumbered; "
                "choose a method for experts."
            )
        least = sorted(range(1, len(influence)), key=influence.__getitem__)
        self._gone = frozenset(least[: len(influence) - stay])

    def edit(self, model: PreTrainedModel) -> dict[str, Any]:
        """The layers that stay, numbered anew."""
        stack = family_of(model).stack(model)
        depth = len(stack.layers)  # type: ignore[arg-type]
        stay = [i for i in range(depth) if i not in self._gone]
        layers = nn.ModuleList(stack.layers[i] for i in stay)  # type: ignore[index,misc]
        for number, layer in enumerate(layers):
            for module in layer.modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = number  # type: ignore[assignment]
        stack.layers = layers
        stack.config.num_hidden_layers = len(stay)
        if getattr(stack.config, "layer_types", None):
            stack.config.layer_types = [stack.config.layer_types[i] for i in stay]
        return {"layers": len(stay), "layers removed": " ".join(map(str, sorted(self._gone)))}

    def attach(self, model: PreTrainedModel) -> None:
        if not self.neutral:
            self.prepare(model)

    @contextmanager
    def apply(self, model: PreTrainedModel) -> Iterator[Any]:
        """In a session the other layers keep their numbers, which other methods know them by."""
        with restored(model):
            layers = family_of(model).layers(model)
            for i in self._gone:
                layers[i] = Skipped(layers[i])
            yield

    def without_attention(self, depth: int) -> Collection[int]:
        return self._gone


class Skipped(nn.Module):
    """In the place of a decoder layer: what comes in goes out."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.attention_type = getattr(layer, "attention_type", None)  # which mask it gets; it needs none

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states


@dataclass(kw_only=True)
class LayerDropFit(CalibrationFit):
    """How much each layer changes the stream, over a text."""

    windows: int = 16

    method: ClassVar[str] = "layer_drop"

    def facts(self) -> dict[str, Any]:
        read = super().facts()
        layers = family_of(self.model).layers(self.model)
        similar = torch.zeros(len(layers), dtype=torch.float64)

        def watch(number: int) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                entered = args[0] if args else kwargs["hidden_states"]
                left = output[0] if isinstance(output, tuple) else output
                similar[number] += float(cosine_similarity(entered.float(), left.float(), dim=-1).sum())

            return hook

        with torch.no_grad(), ExitStack() as hooks:
            for number, layer in enumerate(layers):
                hooks.callback(layer.register_forward_hook(watch(number), with_kwargs=True).remove)
            for rows in self._ids.long().split(ROWS):
                self.model(input_ids=rows.to(self.model.device), use_cache=False, logits_to_keep=1)
        return read | {"influence": (1 - similar / self._ids.numel()).tolist()}

    def tensors(self) -> dict[str, Tensor]:
        return {}
