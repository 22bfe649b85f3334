"""Measuring for FastKV: how far the last hidden state moves when the tokens are selected at each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.fit.contract import Fit
from laconic.fit.needles import trials
from laconic.methods.cache.fastkv.method import FastKV
from laconic.session import compress


@dataclass(kw_only=True)
class FastKVFit(Fit):
    """Needle prompts read once whole and once per candidate layer, with all of the cache kept.

    Args:
        lengths, depths, needles: of the prompts; a question about the needle ends each.
        tsp_rate: share of the tokens that travels on (0.2).
        tolerance: the curve counts as flat within this much of its range above its lowest point (0.1).
    """

    lengths: tuple[int, ...] = (256, 512, 1024)
    depths: int = 5
    needles: int = 1
    tsp_rate: float = 0.2
    tolerance: float = 0.1

    method: ClassVar[str] = "fastkv"

    def facts(self) -> dict[str, Any]:
        model, tokenizer = self.model, self.tokenizer
        layers = len(family_of(model).stack(model).layers)  # type: ignore[arg-type]
        candidates = range(layers - 1)  # selecting at the last layer would shorten nothing
        distances = [0.0 for _ in candidates]
        prompts = [prompt.ids for prompt in trials(tokenizer, self.lengths, self.depths, self.needles, self.seed)]
        for ids in prompts:
            whole = last_hidden(model, ids, None)
            for layer in candidates:
                method = FastKV(keep=1.0, tsp_rate=self.tsp_rate, tsp_layer=layer)
                distance = (last_hidden(model, ids, method) - whole).norm() / whole.norm()
                distances[layer] += float(distance) / len(prompts)
        chosen = flattens(distances, self.tolerance)
        self.note("distance by layer: " + " ".join(f"{d:.3f}" for d in distances) + f"; selecting at layer {chosen}")
        return {"tsp_layer": chosen, "distances": [round(d, 5) for d in distances]}


def last_hidden(model: PreTrainedModel, ids: list[int], method: FastKV | None) -> torch.Tensor:
    """The last token's state before the head, [hidden], with all tokens or under `method`."""
    states: list[torch.Tensor] = []
    stack = family_of(model).stack(model)
    hook = stack.register_forward_hook(lambda module, args, output: states.append(output.last_hidden_state[0, -1].float()))
    try:
        with torch.inference_mode(), compress(model, *([] if method is None else [method])):
            model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1)
    finally:
        hook.remove()
    return states[0]


def flattens(distances: list[float], tolerance: float) -> int:
    """The first layer whose distance is within `tolerance` of the curve's range above its lowest point."""
    low, high = min(distances), max(distances)
    return next(i for i, d in enumerate(distances) if d <= low + tolerance * (high - low))
