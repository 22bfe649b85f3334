"""The model that CoLaR trains: a copy of the host with the head that draws vectors."""

from __future__ import annotations

from transformers import PreTrainedModel

from laconic.fit.thinker import Thinker
from laconic.methods.reasoning.colar.network import LatentHead


class LatentThinker(Thinker):
    """The copy of the model with the head that draws vectors.

    Args:
        width: of the head.

    Attributes:
        deviation: of the embeddings' numbers, the unit of the head.
    """

    def __init__(self, model: PreTrainedModel, width: int):
        super().__init__(model)
        self.width, self.deviation = width, float(self.lm.get_input_embeddings().weight.float().std())
        self.latent_head = LatentHead(model.config.get_text_config().hidden_size, width)
