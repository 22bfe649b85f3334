"""The policy of CaCoVID: a decoder layer that sees both ways, and two small heads (arXiv 2602.01649)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.memory.encoder import Encoder


def head(width: int) -> nn.Sequential:
    """RMS norm, then D -> D/2 -> D/4 -> D/8 -> D/16 -> 2 with SiLU between: logits of drop and keep."""
    sizes = [max(2, width // 2**i) for i in range(5)]
    layers: list[nn.Module] = [nn.RMSNorm(width)]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 2))


class Policy(nn.Module):
    """A copy of the model's first decoder layer over the whole prompt, without a causal mask, and a head each for tokens and
    for frames."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        width = int(model.config.get_text_config().hidden_size)
        self.layer = Encoder(model, 1)
        self.tokens, self.frames = head(width), head(width)

    def forward(self, prompt: Tensor, frames: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (drop, keep) of N visual tokens [B, N, 2], frame after frame, and of t frames [B, t, 2].

        Args:
            prompt: embeddings of text and visual tokens, [B, n, D]. frames: rows of each frame's tokens, [v] each.
        """
        n = prompt.shape[1]
        mask = prompt.new_zeros(1, 1, n, n)  # all see all
        hidden: Tensor = self.layer.decoder(inputs_embeds=prompt, attention_mask=mask, use_cache=False).last_hidden_state
        means = torch.stack([hidden[:, rows].mean(1) for rows in frames], 1)
        return self.tokens(hidden[:, torch.cat(frames)]), self.frames(means)


def scores(logits: Tensor) -> Tensor:
    """Logits (drop, keep) [..., 2] -> how much keeping is preferred [...]."""
    return logits[..., 1] - logits[..., 0]


def load(artifact: Artifact, model: PreTrainedModel) -> Policy:
    """The trained policy, in fp32 and frozen."""
    return artifact.restore(Policy(model))
