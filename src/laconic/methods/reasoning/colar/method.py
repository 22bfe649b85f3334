"""CoLaR: blocks of a chain of thought as single vectors that the model draws for itself (arXiv 2505.16552)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.decode.contract import Latents, TrainedReasoning
from laconic.decode.thought import Thought
from laconic.method import register
from laconic.methods.reasoning.colar.network import LatentHead, drawn

SPEED, BEGIN = "speed", "<think>"
"""Words of `laconic.testbed.reasoner_model`: they open an answer, with the speed between them."""


@register(
    "colar",
    site="reasoning",
    mechanism="latent thinking",
    source="arXiv 2505.16552",
    query_aware=False,
    training="trained",
    inferred="the speed stands after the question, in the first tokens of the answer; embeddings stay as they are",
)
@dataclass(kw_only=True)
class CoLaR(TrainedReasoning):
    """A step of thinking is one vector for a block of tokens, drawn by a small head from the last hidden state.

    The prompt says how many tokens a vector stands for. The language-model head goes on to predict a token of the next
    block; when it draws the mark, the thinking is over.

    Args:
        speed: tokens that one step stands for, one of those that it was trained for.
        temperature: of vectors and of the mark; 0: the mean, and the likeliest token.
        most: steps after which the mark is forced.
        artifact: what `laconic fit colar` wrote: a file, a shipped name, or a Hub id.
        mark: text that ends the thinking; None: what the model or its vocabulary says.

    Raises:
        ValueError: a speed that the artifact was not trained for, a negative temperature, or less than one step.
    """

    speed: int = 2
    temperature: float = 1.0
    most: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature < 0 or self.most < 1:
            raise ValueError(f"{self.name}: temperature={self.temperature} must be at least 0, most={self.most} at least 1.")

    def attach(self, model: PreTrainedModel) -> None:
        super().attach(model)
        assert self.trained is not None
        speeds = self.trained.data["speeds"]
        if self.speed not in speeds:
            raise ValueError(f"{self.name}: speed={self.speed}: this artifact knows {', '.join(map(str, speeds))}; use one.")
        self.deviation = float(self.trained.data["deviation"])
        self.head = LatentHead(model.config.get_text_config().hidden_size, self.trained.data["width"])
        prefix = "latent_head."
        own = {n.removeprefix(prefix): x.float() for n, x in self.trained.tensors.items() if n.startswith(prefix)}
        self.head.load_state_dict(own)
        self.head.requires_grad_(False).to(model.device)

    def opening(self, tokenizer: Any) -> Sequence[int]:
        found: list[int] = tokenizer.convert_tokens_to_ids([SPEED, str(self.speed), BEGIN])
        return found

    def latents(self, thought: Thought, hidden: Tensor, logits: Tensor) -> Latents:
        mean, log_std = self.head(hidden.float())
        vectors = drawn(mean, log_std, self.temperature) * self.deviation
        if self.temperature:
            token = torch.multinomial((logits.float() / self.temperature).softmax(-1), 1)[:, 0]
        else:
            token = logits.argmax(-1)
        over = ((token == thought.mark[0]) & (thought.thinking > 0)) | (thought.thinking >= self.most)
        return Latents(vectors, ~over, over)
