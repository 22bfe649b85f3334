"""Post-hoc training of LoCoCo's mixers: the model is frozen, text runs in chunks, one backward pass per chunk.

Only the convolutions and the scalars are trained (arXiv 2406.05317, post-hoc mode of the text). What a chunk stores is
detached from the graph; the memory that `compress` makes of it is not, so the loss of a chunk reaches the mixers that made
the memory before it, and nothing earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from laconic.errors import UnsupportedModelError
from laconic.fit.contract import TrainingFit
from laconic.fit.schedules import linear_decay
from laconic.fit.text import IGNORED, FileSource, Source, TestbedSource
from laconic.methods.cache.lococo.network import Mixer, compress, learned_slots
from laconic.ops.select import top_k

Squeeze = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(layer, keys [B, Hkv, n, D], values, score [B, Hkv, n]) -> fewer of them."""


def chunks(
    model: PreTrainedModel, ids: torch.Tensor, chunk: int, most: int, squeeze: Squeeze | None
) -> Iterator[torch.Tensor]:
    """Logits of `ids` [B, T], chunk by chunk, [B, <= chunk, V] each, over a memory that `squeeze` shortens when it holds
    more than `most` entries (None: never). The model must compute attention eagerly: its column sums are the scores."""
    cache = DynamicCache(config=model.config)
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    mass: list[torch.Tensor] = []
    for start in range(0, ids.shape[1], chunk):
        piece = ids[:, start : start + chunk]
        for number, layer in enumerate(layers):
            if squeeze is not None and layer.get_seq_length() > most:
                assert layer.keys is not None and layer.values is not None
                layer.keys, layer.values = squeeze(number, layer.keys, layer.values, mass[number])
        positions = torch.arange(start, start + piece.shape[1], device=ids.device)[None]
        out = model(piece, position_ids=positions, past_key_values=cache, use_cache=True, output_attentions=True)
        yield out.logits
        mass = []
        for layer, rows in zip(layers, out.attentions, strict=True):
            assert layer.keys is not None and layer.values is not None
            layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
            sums = rows.detach().float().sum(2)  # [B, H, n]
            mass.append(sums.view(sums.shape[0], layer.keys.shape[1], -1, sums.shape[-1]).mean(2))


def mixing(layers: nn.ModuleList, heavy: int) -> Squeeze:
    """LoCoCo's way to shorten a memory."""

    def squeeze(
        number: int, keys: torch.Tensor, values: torch.Tensor, score: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mixer = layers[number]
        assert isinstance(mixer, Mixer)
        return compress(keys, values, score, mixer, heavy)[:2]

    return squeeze


def heavy_hitters(memory: int) -> Squeeze:
    """The published baseline: the `memory` best entries stay."""

    def squeeze(
        number: int, keys: torch.Tensor, values: torch.Tensor, score: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        index = top_k(score, [memory] * score.shape[0]).index[..., None]
        return keys.gather(2, index.expand(*index.shape[:3], keys.shape[-1])), values.gather(
            2, index.expand(*index.shape[:3], values.shape[-1])
        )

    return squeeze


def chunk_losses(logits: Iterator[torch.Tensor], labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, int]]:
    """Summed next-token cross-entropy inside each chunk, and of how many tokens; labels [B, T], -100 has no loss."""
    start = 0
    for piece in logits:
        stop = start + piece.shape[1]
        wanted = labels[:, start + 1 : stop]
        loss = F.cross_entropy(piece[:, :-1].flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="sum")
        yield loss, int((wanted != IGNORED).sum())
        start = stop


@dataclass(kw_only=True)
class LoCoCoFit(TrainingFit):
    """The convolutions that fold old entries into slots.

    Args:
        memory, keep_rate, kernel, slack: of the method; the artifact will work for this memory and share only.
        chunk: tokens per pass; tokens: of a sequence; batch_size: sequences per step.
        lr: of the convolutions; lr_nu: of the scalars. Both fall linearly to zero. No weight decay.
        init: of the convolutions, "standard" (torch's) or "normal" (N(0, 1), as published).
        text: a UTF-8 file to train on; empty for the testbed's training mixture (only for its models).
    """

    memory: int = 128
    keep_rate: float = 0.5
    kernel: int = 21
    slack: int = 16
    chunk: int = 128
    tokens: int = 1024
    batch_size: int = 4
    lr: float = 5e-3
    lr_nu: float = 2e-2
    init: str = "standard"
    clip: float | None = 1.0
    text: str = ""

    method: ClassVar[str] = "lococo"
    attention: ClassVar[str | None] = "eager"  # its column sums are the scores
    may_be_zero: ClassVar[tuple[str, ...]] = ("seed", "slack")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init not in ("standard", "normal"):
            raise ValueError(f"init={self.init!r}: choose 'standard' or 'normal'.")
        if self.kernel % 2 == 0 or not 0 < learned_slots(self.memory, self.keep_rate) < self.memory:
            raise ValueError(
                f"kernel={self.kernel} must be odd, and memory={self.memory} with keep_rate={self.keep_rate} must have both "
                "heavy entries and learned slots."
            )

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.ModuleList:
        if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
            raise UnsupportedModelError(
                f"{type(model).__name__} has layers that are not full attention; LoCoCo's mixers are trained for models "
                "whose layers all are."
            )
        config: Any = model.config.get_text_config()
        d = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        slots = learned_slots(self.memory, self.keep_rate)
        self.layers = nn.ModuleList(Mixer(2 * d, slots, self.kernel) for _ in range(config.num_hidden_layers))
        if self.init == "normal":
            for layer in self.layers:
                nn.init.normal_(layer.conv.weight)  # type: ignore[union-attr, arg-type]
        self.model, self.source = model, self.source_of(tokenizer)
        self.squeeze = mixing(self.layers, self.memory - slots)
        return self.layers

    def source_of(self, tokenizer: Any) -> Source:
        """Where batches come from."""
        return FileSource(tokenizer, Path(self.text)) if self.text else TestbedSource(tokenizer)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        convolutions = [p for n, p in module.named_parameters() if not n.endswith("nu")]
        scalars = [p for n, p in module.named_parameters() if n.endswith("nu")]
        groups = [{"params": convolutions, "lr": self.lr}, {"params": scalars, "lr": self.lr_nu}]
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def rate(self, step: int) -> float:
        return linear_decay(step, self.steps)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """ids and labels, [batch_size, tokens] each."""
        ids, labels = self.source.batch(self.seed, step, self.batch_size, self.tokens)
        return ids.to(self.model.device), labels.to(self.model.device)

    def loss(self, batch: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
        """The share of each chunk in the mean loss of the supervised tokens. The first chunks, before which nothing is
        compressed, have no gradient."""
        ids, labels = batch
        count = max(1, int((labels != IGNORED).sum()))
        logits = chunks(self.model, ids, self.chunk, self.memory + self.slack, self.squeeze)
        for loss, _ in chunk_losses(logits, labels):
            yield loss / count

    def progress(self) -> str:
        return "nu " + " ".join(f"{float(layer.nu.detach()):.2f}" for layer in self.layers)  # type: ignore[operator, union-attr]

    def facts(self) -> dict[str, Any]:
        return {"memory": self.memory}
