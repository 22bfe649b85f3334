"""A trainable copy of a model's decoder, or of its first layers, that reads embeddings."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families import family_of
from laconic.families.parameters import plain_parameters


class Encoder(nn.Module):
    """A copy of the decoder of `model`, in fp32 and with all its weights trainable; the model itself is not touched.

    Its weights are those of a fresh module, not of a deep copy, so that hooks of a session and the like stay behind.

    Args:
        layers: how many of the first layers; None: all of them. The final norm is that of the last layer alone, and is left
            out where layers are.
    """

    def __init__(self, model: PreTrainedModel, layers: int | None = None):
        super().__init__()
        stack: Any = family_of(model).stack(model)
        depth = len(stack.layers)
        if layers is not None and not 1 <= layers <= depth:
            raise ValueError(f"layers={layers}: this model has {depth}; choose 1 to {depth}.")
        count = depth if layers is None else layers
        config = copy.deepcopy(stack.config)
        config.num_hidden_layers, config.vocab_size, config.pad_token_id = count, 1, None
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:count]
        config._attn_implementation = "sdpa"
        self.decoder: Any = type(stack)(config).float()
        self.decoder.embed_tokens = nn.Identity()  # it is called with embeddings
        own, wanted = dict(plain_parameters(stack)), self.decoder.state_dict()
        if missing := [name for name in wanted if name not in own]:
            raise UnsupportedModelError(
                f"{type(model).__name__} has no plain weight {missing[0]!r}, so its decoder cannot be copied; load the "
                "model without quantisation."
            )
        self.decoder.load_state_dict({name: own[name] for name in wanted})
        if count < depth:
            self.decoder.norm = nn.Identity()

    def forward(self, embeddings: Tensor) -> Tensor:
        """embeddings [B, T, d] -> hidden states after the last layer [B, T, d]; causal, positions from 0."""
        hidden: Tensor = self.decoder(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return hidden

    def entries(self, embeddings: Tensor, start: int = 0) -> DynamicCache:
        """The keys and values of embeddings [B, T, d] in every layer; causal, positions from `start`."""
        cache = DynamicCache()
        at = torch.arange(start, start + embeddings.shape[1], device=embeddings.device)[None].expand(len(embeddings), -1)
        self.decoder(inputs_embeds=embeddings, past_key_values=cache, position_ids=at, use_cache=True)
        return cache
