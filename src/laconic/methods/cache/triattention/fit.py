"""Measuring for TriAttention: the centre and the mean length of every head's queries before RoPE (arXiv 2604.04921)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.cache.heads import shape
from laconic.cache.observe import Observation
from laconic.fit.contract import Fit
from laconic.fit.layer_probe import LayerProbe
from laconic.fit.passages import passage_ids
from laconic.session import compress


@dataclass(kw_only=True)
class TriAttentionFit(Fit):
    """A few passes over Python's documentation, of which evaluation reads other documents.

    Args:
        tokens: of one pass (1,024). `passes`: of different documents (4).
    """

    tokens: int = 1024
    passes: int = 4

    method: ClassVar[str] = "triattention"

    def facts(self) -> dict[str, Any]:
        model = self.model
        layers = shape(model)[0]
        total: dict[int, Tensor] = {}
        lengths: dict[int, Tensor] = {}

        def look(obs: Observation) -> None:
            rotated = obs.rotary(obs.step.position_ids)[0].shape[-1]
            for block in obs.plain_blocks():
                queries = block[0].float()  # [H, m, D]
                pairs = queries[..., :rotated].unflatten(-1, (2, -1)).square().sum(-2).sqrt()
                total[obs.layer] = total.get(obs.layer, 0) + queries.sum(1)
                lengths[obs.layer] = lengths.get(obs.layer, 0) + pairs.sum(1)

        read = 0
        for number in range(self.passes):
            ids = passage_ids(self.tokenizer, self.tokens, f"{self.seed}-{number}")
            read += len(ids)
            with torch.inference_mode(), compress(model, LayerProbe(prefill=look)):
                model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1)
        self._centre = torch.stack([total[i].cpu() for i in range(layers)]) / read
        self._size = torch.stack([lengths[i].cpu() for i in range(layers)]) / read
        pairs = self._centre[..., : 2 * self._size.shape[-1]].unflatten(-1, (2, -1)).square().sum(-2).sqrt()
        share = float((pairs.sum(-1) / self._size.sum(-1)).mean())
        self.note(f"{read} tokens read; centres have {share:.2f} of the queries' length, on average over heads")
        return {"tokens": read, "concentration": round(share, 4)}

    def tensors(self) -> dict[str, Tensor]:
        """`centre` [layers, H, D] and `size` [layers, H, D_rot / 2]."""
        return {"centre": self._centre.contiguous(), "size": self._size.contiguous()}
