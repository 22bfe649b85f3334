"""Training of DiffRate's schedules: the answer's cross-entropy, and a price on multiply-adds away from their target. All
weights of the model stay as they are (arXiv 2305.17997)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import UnsupportedModelError
from laconic.families.vision import vision_family_of
from laconic.families.vision.encoder import layers_of
from laconic.fit.contract import TrainingFit
from laconic.fit.images import numbered, with_answers
from laconic.fit.text import IGNORED
from laconic.methods.encoder.diffrate.network import Proxies, Soft, layer_step
from laconic.methods.encoder.diffrate.schedule import macs, steady
from laconic.stream.tower import check

Batch = tuple[int, dict[str, Tensor], Tensor]
"""Number of the share, inputs with answers, labels [B, T]."""


@dataclass(kw_only=True)
class DiffRateFit(TrainingFit):
    """One schedule for each share of patches left, the steps shared out among them in turn.

    Args:
        keeps: shares of the patches that reach the decoder.
        flops: share of the layers' multiply-adds to end at, for each of `keeps`; empty: what merging equally many tokens in
            every layer takes, as `tome` does.
        granularity: between candidates for a count, in tokens (4 for 196 patches).
        batch_size: questions per step. `steps`: over all shares.
        lr: at first; it falls to a tenth of this in a cosine.
        price: on the squared difference between multiply-adds and their target, as a share of those of the whole encoder.
            The published 5 per squared GFLOP is 106 at DeiT-S' 4.6 GFLOPs.
        file: JSON lines with "image", "question" and "answer"; empty for drawn scenes.
    """

    keeps: tuple[float, ...] = (0.5, 0.25, 0.1)
    flops: tuple[float, ...] = ()
    granularity: int = 2
    batch_size: int = 16
    steps: int = 1200
    lr: float = 1e-2
    price: float = 106.0
    file: str = ""

    method: ClassVar[str] = "diffrate"
    stored: ClassVar[torch.dtype] = torch.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(keep >= 1 for keep in self.keeps):
            raise ValueError(f"diffrate: keeps={self.keeps}: each must be below 1.")
        if self.flops and len(self.flops) != len(self.keeps):
            raise ValueError(f"diffrate: flops={self.flops} needs one share for each of keeps={self.keeps}, or none.")

    def build(self, model: PreTrainedModel, tokenizer: Any) -> nn.ModuleList:
        check(model, self.method, proportional=True)
        family = vision_family_of(model)
        tower = family.tower(model)
        self.model, self.processor, self.questions = model, tokenizer, numbered(self.file, self.seed)
        self.tower, self.projector, self.cls = tower, family.projector(model), int(family.has_cls(model))
        self.image = family.token_id(model, "image")
        self.layers = list(layers_of(tower))[: family.feature_layer(model) + 1]
        self.patches, config = family.side(model) ** 2, tower.config
        self.width, self.inner = int(config.hidden_size), int(config.intermediate_size)
        if len(self.layers) < 2:
            raise UnsupportedModelError("diffrate: the first encoder layer removes nothing, and this encoder has no other.")
        left = [max(1, round(keep * self.patches)) for keep in self.keeps]
        tokens, layers = self.patches + self.cls, len(self.layers)
        whole = macs(steady(tokens, tokens, layers).counts(tokens), self.width, self.inner)
        even = [macs(steady(tokens, n + self.cls, layers).counts(tokens), self.width, self.inner) / whole for n in left]
        self.whole, self.targets = whole, list(self.flops) or even
        self.proxies = nn.ModuleList(Proxies(self.patches, n, layers, self.granularity, self.cls) for n in left)
        return self.proxies

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=self.lr, weight_decay=0.0)

    def rate(self, step: int) -> float:
        return 0.1 + 0.9 * (1 + math.cos(math.pi * step / self.steps)) / 2

    def batch(self, step: int) -> Batch:
        asked = [self.questions(step * self.batch_size + i) for i in range(self.batch_size)]
        given, labels = with_answers(self.processor, asked)
        device = self.model.device
        return step % len(self.keeps), {k: v.to(device) for k, v in given.items()}, labels.to(device)

    def loss(self, batch: Batch) -> Tensor:
        which, given, labels = batch
        proxies: Any = self.proxies[which]
        logits, wanted = self.answered(proxies, given, labels)
        off = proxies.macs(self.width, self.inner) / self.whole - self.targets[which]
        return F.cross_entropy(logits, wanted) + self.price * off**2

    def answered(self, proxies: Proxies, given: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the answers' tokens [n, V] and the tokens themselves [n], from the patches that are left."""
        assert self.projector is not None
        image = given["input_ids"] == self.image
        if bool((image.sum(1) != self.patches).any()):
            raise UnsupportedModelError(
                f"diffrate is fitted on prompts with one view of {self.patches} patches each; these have "
                f"{image.sum(1).tolist()} visual tokens. Use a model of one view per image."
            )
        soft = self.encoded(proxies, given["pixel_values"])
        there = soft.mask[:, self.cls :].detach().round() > 0
        features = self.projector(soft.x[:, self.cls :][there].unflatten(0, (len(there), -1)))
        stays = ~image | (image.cumsum(1) <= features.shape[1])
        ids, mask, labels = (
            x[stays].unflatten(0, (len(stays), -1)) for x in (given["input_ids"], given["attention_mask"], labels)
        )
        embeds = self.model.get_input_embeddings()(ids)
        embeds = embeds.masked_scatter((ids == self.image)[..., None], features.to(embeds))
        logits = self.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False).logits
        asked = labels[:, 1:] != IGNORED
        return logits[:, :-1][asked].float(), labels[:, 1:][asked]

    def encoded(self, proxies: Proxies, pixels: Tensor) -> Soft:
        """The encoder's tokens after the layer that gives the features; those that are gone are masked."""
        first: list[Tensor] = []
        hook = self.layers[0].register_forward_pre_hook(lambda module, args: first.append(args[0]))
        try:
            with torch.no_grad():
                self.tower(pixels)
        finally:
            hook.remove()
        x = first[0]
        soft = Soft(x, torch.ones_like(x[..., 0]), torch.ones_like(x[..., 0]))
        for number, layer in enumerate(self.layers):
            counts = [int(count) for count in proxies.counts(number)]
            soft = layer_step(layer, soft, proxies.of(number), (counts[0], counts[1]), bool(self.cls))
        return soft

    def progress(self) -> str:
        """Multiply-adds of every share's schedule against its target."""
        return ", ".join(f"{share:.3f} of {target:.3f}" for share, target in zip(self.shares(), self.targets, strict=True))

    @torch.no_grad()
    def shares(self) -> list[float]:
        """Multiply-adds of the encoder's layers under each schedule, as a share."""
        return [float(one.macs(self.width, self.inner)) / self.whole for one in self.proxies]  # type: ignore[operator]

    def facts(self) -> dict[str, Any]:
        schedules = []
        for keep, proxies, share, target in zip(self.keeps, self.proxies, self.shares(), self.targets, strict=True):
            found = proxies.schedule()  # type: ignore[operator]
            one = {"keep": keep, "prune": list(found.prune), "merge": list(found.merge)}
            schedules.append(one | {"share": round(share, 5), "target": round(target, 5)})
        return {"patches": self.patches, "schedules": schedules}
