"""Measuring for VTW: how far the answer's first distribution moves when visual tokens leave before each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.fit.contract import Fit
from laconic.fit.images import batched, chosen
from laconic.methods.tokens.vtw.method import VTW
from laconic.session import compress
from laconic.stream.blocks import at_depth


@dataclass(kw_only=True)
class VTWFit(Fit):
    """A few samples, read once whole and once per candidate layer (arXiv 2405.05803, 20 samples).

    K is the first layer whose mean KL(removed || full) of the last token's output distribution is at most eta.

    Args:
        eta: largest divergence: 3e-3 (LLaVA-1.5-7B); 5e-4 for the 13B model, 1e-4 for LLaVA-NeXT-7B.
        first: the first candidate; 5 of 32, scaled to the model's depth.
        samples: number of images, each with a question (20).
        batch_size: samples that run together (10).
        file: JSON lines with "image" and "question" instead of drawn scenes; all of them are used.
    """

    eta: float = 3e-3
    first: int | None = None
    samples: int = 20
    batch_size: int = 10
    file: str = ""

    method: ClassVar[str] = "vtw"

    def facts(self) -> dict[str, Any]:
        asked = chosen(self.file, self.samples, self.seed)
        found = divergences(self.model, batched(self.tokenizer, asked, self.batch_size, self.model.device), self.first)
        layer = search(found, self.eta)
        self.note("KL by layer: " + " ".join(f"{k}: {kl:.5f}" for k, kl in found.items()))
        self.note(f"withdrawing before layer {layer}" if layer is not None else "no layer's divergence is small enough")
        return {} if layer is None else {"layer": layer, "divergences": [round(kl, 7) for kl in found.values()]}


def divergences(model: PreTrainedModel, batches: list[dict[str, Tensor]], first: int | None = None) -> dict[int, float]:
    """KL(removed || full) of the last token's output distribution when visual tokens leave before layer K, mean over all
    rows of the batches (padded on the left), for every K from `first` on; None: 5 of 32, scaled."""
    depth = len(family_of(model).stack(model).layers)  # type: ignore[arg-type]
    candidates = range(at_depth(5, depth) if first is None else first, depth)
    totals, rows = dict.fromkeys(candidates, 0.0), 0
    for given in batches:
        full = last_distribution(model, given, None)
        rows += len(full)
        for k in candidates:
            removed = last_distribution(model, given, VTW(layer=k))
            totals[k] += float((removed.exp() * (removed - full)).sum())
    return {k: total / rows for k, total in totals.items()}


def last_distribution(model: PreTrainedModel, given: dict[str, Tensor], method: VTW | None) -> Tensor:
    """Log-probabilities of the token after each prompt, fp32 [B, V]."""
    with torch.inference_mode(), compress(model, *([] if method is None else [method])):
        logits: Tensor = model(**given, logits_to_keep=1).logits[:, -1].float()
    return logits.log_softmax(-1)


def search(divergences: dict[int, float], eta: float) -> int | None:
    """The first layer whose divergence is at most `eta`; None: there is none."""
    return next((k for k, kl in divergences.items() if kl <= eta), None)
