"""The network of Tempo: a small causal decoder reads a segment, the question, and then writes notes (arXiv 2604.08120)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.encoder import Encoder
from laconic.stream.film import TimeToken, followed, picked


class Notes(nn.Module):
    """Notes of a segment, and whether it matters.

        g([segment, question, memory tokens]);   R = LN(g) at the memory tokens
        s = sigmoid((w_yes - w_no) . LN(g))  at the last token before them

    Because g is causal, the first k notes are what k memory tokens alone would give.

    Args:
        model: whose first decoder layers g begins as. `layers`: of g.
        count: K, memory tokens; drawn like the model's embeddings.
    """

    def __init__(self, model: PreTrainedModel, layers: int, count: int):
        super().__init__()
        table: Any = model.get_input_embeddings()
        weight = table.weight.detach().float()
        width = weight.shape[1]
        self.encoder, self.norm = Encoder(model, layers), nn.LayerNorm(width)
        self.memory = nn.Parameter(weight.mean(0) + weight.std(0) * torch.randn(count, width))
        self.answers = nn.Linear(width, 2, bias=False)
        """The rows of a head that say yes and no."""
        self.bridge, self.time = nn.Linear(width, width), TimeToken(width)
        with torch.no_grad():
            self.bridge.weight.copy_(torch.eye(width) * weight.std())  # notes begin about as long as embeddings
            self.bridge.bias.zero_()

    def forward(self, segments: Tensor, asks: Tensor, counts: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Notes after the bridge, [N k, K, D], and the logits of yes and no, [N k, 2].

        Args:
            segments: tokens of N segments, [N, n, D]. Each is read once for all questions about it.
            asks: embeddings of k questions about each in turn, [N k, L, D], the first ``counts[q]`` of a row.
            count: memory tokens, of which the first are used; None: all.
        """
        cache, n = self.encoder.entries(segments), segments.shape[1]
        cache.batch_repeat_interleave(len(asks) // len(segments))
        rows, at = followed(asks, counts, self.memory[:count])
        places = torch.arange(n, n + rows.shape[1], device=rows.device)[None].expand(len(rows), -1)
        out = self.encoder.decoder(inputs_embeds=rows, past_key_values=cache, position_ids=places, use_cache=True)
        read = self.norm(out.last_hidden_state)
        return self.bridge(picked(read, at)), self.answers(picked(read, counts[:, None] - 1)[:, 0])


def likely(logits: Tensor) -> Tensor:
    """How likely segments matter, of the logits of yes and no [..., 2]: the sigmoid of their difference, fp32."""
    return torch.sigmoid((logits[..., 0] - logits[..., 1]).float())


def load(artifact: Artifact, model: PreTrainedModel) -> Notes:
    """The trained network, in fp32 and frozen."""
    return artifact.restore(Notes(model, artifact.data["layers"], artifact.data["notes"]))
