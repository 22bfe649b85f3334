"""Training of C3: the frozen model is to give back the text from the smaller model's latent tokens."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedModel

from laconic.families import family_of
from laconic.fit.memory import MemoryFit
from laconic.fit.slots import Reading
from laconic.loading import load, tokenizer_of
from laconic.memory.compressor import slots_of
from laconic.methods.memory.c3.network import Cascade, decoder_of


@dataclass(kw_only=True)
class C3Fit(MemoryFit):
    """The smaller model, its queries and the linear layer.

    Args:
        small: name or folder of a model with the same tokenizer; empty: the first `layers` layers of the model itself.
        layers: where there is no smaller model.
        restoring: share of the steps that ask for the text, as published; the others ask questions about it. 0 for a model
            that cannot copy.
    """

    small: str = ""
    layers: int = 2
    restoring: float = 1.0

    method: ClassVar[str] = "c3"
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "restoring")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restoring > 1:
            raise ValueError(f"c3: restoring={self.restoring} is a share of the steps, at most 1.")
        if wrong := [n for n in self.lengths if n > self.segment and n % self.segment]:
            raise ValueError(f"c3: lengths={wrong[0]} must be whole segments of {self.segment} tokens, or one shorter.")

    def network(self, model: PreTrainedModel) -> Cascade:
        small = self._smaller(model)
        self.config = small.config.to_diff_dict() | {"model_type": small.config.model_type}
        width = model.config.get_text_config().hidden_size
        return Cascade(small, width, self.segment, slots_of(self.segment, max(self.keeps)))

    def _smaller(self, model: PreTrainedModel) -> PreTrainedModel:
        """The smaller model as a decoder of its own."""
        if self.small:
            other, reader = load(self.small)
            if tokenizer_of(reader).get_vocab() != self.tokenizer.get_vocab():
                raise ValueError(
                    f"c3: small={self.small!r} has another tokenizer; both models must read the same token ids."
                )
            stack: Any = family_of(other).stack(other)
            depth = len(stack.layers)
        else:
            stack = family_of(model).stack(model)
            depth = self.layers
            if depth > len(stack.layers):
                raise ValueError(f"c3: layers={depth}: this model has {len(stack.layers)}.")
        config = copy.deepcopy(stack.config)
        config.num_hidden_layers = depth
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:depth]
        config._attn_implementation = "sdpa"
        made = decoder_of(config.to_dict())
        made.load_state_dict({name: weight for name, weight in stack.state_dict().items() if name in made.state_dict()})
        return made

    def batch(self, step: int) -> tuple[Reading, float]:
        copying = random.Random(f"restore-{self.seed}-{step}").random() < self.restoring
        return self.drawn(step, copying)

    def facts(self) -> dict[str, Any]:
        network: Any = self.compressor
        width, latents = network.linear.out_features, len(network.queries)
        return {**super().facts(), "small": self.config, "width": width, "latents": latents}
