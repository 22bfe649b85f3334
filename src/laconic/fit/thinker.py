"""A trainable copy of a model that thinks, for trainings of its chains of thought."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.families import family_of


class Thinker(nn.Module):
    """A copy of `model` in fp32 whose layers and final norm are trained; its embeddings and its head stay as they are.

    Its state names the trained numbers ``decoder.layers ...`` and ``decoder.norm ...``, as the model's text decoder does.

    Attributes:
        lm: the copy, which generates and is called like the model itself.
    """

    lm: Any

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        config = copy.deepcopy(model.config)
        config._attn_implementation = "sdpa"
        lm: Any = type(model)(config).float()
        lm.load_state_dict(model.state_dict())
        lm.generation_config = copy.deepcopy(model.generation_config)
        lm.requires_grad_(False).to(model.device)
        stack: Any = family_of(lm).stack(lm)
        self.__dict__["lm"] = lm  # no part of the state: embeddings and head are not trained
        self.decoder = nn.ModuleDict({"layers": stack.layers, "norm": stack.norm}).requires_grad_(True)

    def embedded(self, ids: Tensor) -> Tensor:
        """Token ids [B, T] -> embeddings [B, T, d]."""
        embeddings: Tensor = self.lm.get_input_embeddings()(ids)
        return embeddings

    def states(self, embeddings: Tensor) -> Tensor:
        """Embeddings [B, T, d] -> last hidden states after the final norm [B, T, d]; causal, positions from 0."""
        hidden: Tensor = family_of(self.lm).stack(self.lm)(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states -> logits."""
        found: Tensor = self.lm.get_output_embeddings()(hidden)
        return found
