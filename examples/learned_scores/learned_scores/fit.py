"""What `laconic fit learned_scores` trains: the scorer, on the attention of the frozen model while it reads a text."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.fit import TrainingFit
from learned_scores.method import Scorer


@dataclass(kw_only=True)
class LearnedScoresFit(TrainingFit):
    """Scores that follow the attention which entries get from later tokens.

    Args:
        text: a UTF-8 file to read.
        tokens: of a window of the text: entries of its first half are scored by what its second half looks at.
        batch_size: windows per step.
    """

    text: str = ""
    tokens: int = 256
    batch_size: int = 2
    steps: int = 100
    lr: float = 1e-2

    method: ClassVar[str] = "learned_scores"
    attention: ClassVar[str | None] = "eager"  # attention weights are read

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.Module:
        if not self.text:
            raise ValueError("learned_scores: text='': name a UTF-8 file to train on, such as --set text=FILE.")
        ids = tokenizer(Path(self.text).read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
        config = model.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.shape = {"layers": config.num_hidden_layers, "heads": config.num_key_value_heads, "size": size}
        self.model, self.ids, self.scorer = model, torch.tensor(ids), Scorer(**self.shape)
        return self.scorer

    def batch(self, step: int) -> Tensor:
        """Token ids [batch_size, tokens]."""
        draw, last = random.Random(f"{self.seed}-{step}"), len(self.ids) - self.tokens
        if last < 0:
            raise ValueError(f"learned_scores: {self.text} has {len(self.ids)} tokens, too few for tokens={self.tokens}.")
        starts = [draw.randint(0, last) for _ in range(self.batch_size)]
        return torch.stack([self.ids[at : at + self.tokens] for at in starts]).to(self.model.device)

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy between what the second half attends to in the first and the softmax of the scores, over layers."""
        early = self.tokens // 2
        with torch.no_grad():
            out = self.model(batch, output_attentions=True, use_cache=True)
        total = torch.zeros((), device=batch.device)
        for number, (layer, rows) in enumerate(zip(out.past_key_values.layers, out.attentions, strict=True)):
            heads = layer.keys.shape[1]
            received = rows[:, :, early:, :early].float().sum(2)  # [B, H, early], over the tokens that look
            received = received.unflatten(1, (heads, -1)).sum(2)  # [B, Hkv, early], over the group of each KV head
            scores = self.scorer(number, layer.keys[:, :, :early], layer.values[:, :, :early])
            target = received / received.sum(-1, keepdim=True)
            total = total - (target * scores.log_softmax(-1)).sum(-1).mean()
        return total / len(out.attentions)

    def facts(self) -> dict[str, Any]:
        return self.shape
