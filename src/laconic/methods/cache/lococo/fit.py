"""Post-hoc training of LoCoCo's mixers: the model is frozen, text runs in chunks, one backward pass per chunk.

Only the convolutions and the scalars learn (arXiv 2406.05317, post-hoc mode of the text). What a chunk leaves behind is
cut off from the graph; the memory that `compress` makes of it is not, and so the loss of a chunk reaches the mixers that
made the memory before it, and nothing earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from laconic.errors import UnsupportedModelError
from laconic.fit.checkpoint import frozen, load_state, noting, resumable, save_state
from laconic.fit.text import IGNORED, FileSource, Source, TestbedSource
from laconic.fit.trainers import register
from laconic.methods.cache.lococo.network import Mixer, Mixers, compress, learned_slots, load
from laconic.ops.select import top_k
from laconic.recipe import fingerprint
from laconic.version import __version__

WEIGHTS = "lococo.safetensors"
Squeeze = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(layer, keys [B, Hkv, n, D], values, score [B, Hkv, n]) -> fewer of them."""


@dataclass(kw_only=True)
class Settings:
    """What can be set.

    Attributes:
        memory, keep_rate, kernel, slack: of the method; the weights will work for this memory and share only.
        chunk: tokens per pass; tokens: of a sequence; batch: sequences per step.
        lr: of the convolutions; lr_nu: of the scalars. Both fall linearly to zero. No weight decay.
        init: of the convolutions, "standard" (torch's) or "normal" (N(0, 1), as published).
        clip: largest norm of the gradient.
        text: a UTF-8 file to train on; empty for the testbed's training mixture (only for its models).
    """

    memory: int = 128
    keep_rate: float = 0.5
    kernel: int = 21
    slack: int = 16
    chunk: int = 128
    tokens: int = 1024
    batch: int = 4
    steps: int = 1000
    lr: float = 5e-3
    lr_nu: float = 2e-2
    init: str = "standard"
    clip: float = 1.0
    seed: int = 0
    log_every: int = 25
    save_every: int = 100
    text: str = ""

    def __post_init__(self) -> None:
        if self.init not in ("standard", "normal"):
            raise ValueError(f"init={self.init!r}: choose 'standard' or 'normal'.")
        if self.kernel % 2 == 0 or not 0 < learned_slots(self.memory, self.keep_rate) < self.memory:
            raise ValueError(
                f"kernel={self.kernel} must be odd, and memory={self.memory} with keep_rate={self.keep_rate} must have both "
                "heavy entries and learned slots."
            )
        for name in ("slack", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0.")
        for name in ("chunk", "tokens", "batch", "steps", "log_every", "save_every", "lr", "lr_nu", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive.")


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


class Training:
    """The state of one training: mixers, optimiser, step; all of it is in the folder after `save`."""

    def __init__(self, model: PreTrainedModel, source: Source, settings: Settings, out: Path, log: Callable[[str], None]):
        if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
            raise UnsupportedModelError(
                f"{type(model).__name__} has layers that are not full attention; LoCoCo's mixers are trained for models "
                "whose layers all are."
            )
        self.model, self.source, self.settings, self.out, self.note = model, source, settings, out, noting(out, log)
        config = model.config.get_text_config()
        d = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        slots = learned_slots(settings.memory, settings.keep_rate)
        torch.manual_seed(settings.seed)
        layers = nn.ModuleList(Mixer(2 * d, slots, settings.kernel) for _ in range(config.num_hidden_layers))
        if settings.init == "normal":
            for layer in layers:
                nn.init.normal_(layer.conv.weight)  # type: ignore[union-attr, arg-type]
        name = Path(getattr(config, "_name_or_path", "") or type(model).__name__).name
        self.mixers = Mixers(layers.to(model.device), settings.memory, name, fingerprint(model), self._made())
        convolutions = [p for n, p in layers.named_parameters() if not n.endswith("nu")]
        scalars = [p for n, p in layers.named_parameters() if n.endswith("nu")]
        groups = [{"params": convolutions, "lr": settings.lr}, {"params": scalars, "lr": settings.lr_nu}]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
        self.done = 0
        self.seconds = 0.0

    def _made(self) -> dict[str, Any]:
        versions = {"laconic": __version__, **{name: version(name) for name in ("torch", "transformers")}}
        return {"settings": asdict(self.settings), "versions": versions}

    def step(self) -> float:
        """One batch, one optimiser step; the mean loss of its supervised tokens."""
        settings = self.settings
        ids, labels = self.source.batch(settings.seed, self.done, settings.batch, settings.tokens)
        ids, labels = ids.to(self.model.device), labels.to(self.model.device)
        squeeze = mixing(self.mixers.layers, settings.memory - self.mixers.slots)
        logits = chunks(self.model, ids, settings.chunk, settings.memory + settings.slack, squeeze)
        count = max(1, int((labels != IGNORED).sum()))
        total = 0.0
        for loss, _ in chunk_losses(logits, labels):
            if loss.requires_grad:  # the first chunks have nothing compressed before them
                (loss / count).backward()
            total += float(loss.detach())
        for group, lr in zip(self.optimiser.param_groups, (settings.lr, settings.lr_nu), strict=True):
            group["lr"] = lr * (1 - self.done / settings.steps)
        nn.utils.clip_grad_norm_(self.mixers.layers.parameters(), settings.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        return total / count

    def run(self) -> Path:
        """Train to the last step; the file of the weights."""
        settings, recent = self.settings, []
        began, before = time.time(), self.seconds
        while self.done < settings.steps:
            recent.append(self.step())
            self.seconds = before + time.time() - began
            if self.done % settings.log_every == 0 or self.done == settings.steps:
                nu = " ".join(f"{float(layer.nu.detach()):.2f}" for layer in self.mixers.layers)  # type: ignore[operator, union-attr]
                self.note(f"step {self.done} loss {sum(recent) / len(recent):.4f} nu {nu} {self.seconds:.0f} s")
                recent = []
            if self.done % settings.save_every == 0 or self.done == settings.steps:
                self.save()
        return self.out / WEIGHTS

    def save(self) -> None:
        """Weights (bf16 to ship, fp32 to go on from), optimiser and step."""
        self.mixers.save(self.out / WEIGHTS)
        self.mixers.save(self.out / f"exact-{WEIGHTS}", torch.float32)
        state = {"done": self.done, "seconds": self.seconds, "settings": asdict(self.settings)}
        save_state(self.out, [self.optimiser], state)

    def resume(self) -> None:
        """Go on from the folder's checkpoint; raises `RecipeError` when there is none or it was made with other settings."""
        state = resumable(self.out, self.settings)
        self.mixers.layers.load_state_dict(load(self.out / f"exact-{WEIGHTS}").layers.state_dict())
        load_state(self.out, [self.optimiser])
        self.done, self.seconds = state["done"], state["seconds"]


@register("lococo", "the convolutions that fold old entries into slots (frozen model)", Settings)
def train(
    model: PreTrainedModel, tokenizer: Any, settings: Settings, out: Path, resume: bool, log: Callable[[str], None]
) -> Path:
    """Train mixers for `model` and return the file of their weights, ``out/lococo.safetensors``."""
    source: Source
    if settings.text:
        source = FileSource(tokenizer, Path(settings.text))
    else:
        source = TestbedSource(tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    with frozen(model, "eager"):
        training = Training(model, source, settings, out, log)
        if resume:
            training.resume()
        return training.run()
