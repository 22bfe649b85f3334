"""The surrogate of KVzap: a linear map or a small MLP per layer, and the two ways of fitting it (arXiv 2601.07891)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact
from laconic.cache.heads import shape
from laconic.errors import ArtifactError
from laconic.families import family_of
from laconic.fit.schedules import warmup_cosine
from laconic.ops.leastsq import ridge


class Surrogate(nn.Module):
    """``log s+`` of every KV head from what the attention of a layer reads.

    Args:
        layers: compressed layers. `size`: of the hidden states. `heads`: KV heads of a layer.
        width: units of the hidden layer of an MLP; 0: a linear map.
    """

    def __init__(self, layers: int, size: int, heads: int, width: int = 0):
        super().__init__()
        self.width = width
        if width:
            self.enter = nn.Parameter(torch.randn(layers, size, width) / math.sqrt(size))
            self.enter_bias = nn.Parameter(torch.zeros(layers, 1, width))
        inner = width or size
        self.leave = nn.Parameter(torch.randn(layers, inner, heads) / math.sqrt(inner))
        self.leave_bias = nn.Parameter(torch.zeros(layers, 1, heads))

    def forward(self, x: Tensor, layer: int | slice = slice(None)) -> Tensor:
        """x [..., n, size] of one layer -> [..., n, heads]; or x [layers, n, size] of all of them."""
        if self.width:
            x = F.gelu(x @ self.enter[layer] + self.enter_bias[layer])
        return x @ self.leave[layer] + self.leave_bias[layer]

    @classmethod
    def of(cls, artifact: Artifact) -> Surrogate:
        """What `laconic fit kvzap` wrote; raises `ArtifactError` where it lacks a tensor."""
        try:
            layers, inner, heads = artifact.tensors["leave"].shape
            mlp = artifact.tensors.get("enter")
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"this artifact of kvzap lacks {error}; make it again with `laconic fit kvzap`.") from error
        surrogate = cls(layers, inner if mlp is None else mlp.shape[1], heads, 0 if mlp is None else inner)
        return artifact.restore(surrogate)


class Ridge:
    """Fits linear maps in closed form, ``argmin ||X w + b - y||^2 + pull ||w||^2``; the bias is not pulled.

    Of what is added only sums are kept, hidden^2 numbers per layer.
    """

    def __init__(self, layers: int, size: int, heads: int, pull: float):
        self.gram = torch.zeros(layers, size + 1, size + 1, dtype=torch.float64)
        self.target = torch.zeros(layers, size + 1, heads, dtype=torch.float64)
        self.pull = pull

    def add(self, layer: int, x: Tensor, y: Tensor) -> None:
        """x [n, size] and y [n, heads] of one text."""
        x = F.pad(x.double().cpu(), (0, 1), value=1.0)
        self.gram[layer] += x.T @ x
        self.target[layer] += x.T @ y.double().cpu()

    def fitted(self) -> Surrogate:
        """The best map of each layer."""
        count = self.gram[:, -1:, -1:]
        x, y = self.gram[:, :-1, -1:] / count, self.target[:, -1:] / count  # means
        gram = self.gram[:, :-1, :-1] - count * x @ x.mT
        target = self.target[:, :-1] - count * x @ y
        mean = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=torch.finfo(torch.float64).tiny)
        weight = torch.stack([ridge(g, t, share=self.pull / float(m)) for g, t, m in zip(gram, target, mean, strict=True)])
        layers, size, heads = self.target.shape
        found = Surrogate(layers, size - 1, heads)
        found.load_state_dict({"leave": weight.float(), "leave_bias": (y - x.mT @ weight).float()})
        return found.requires_grad_(False)


class Descent:
    """Fits MLPs by gradient, those of all layers at once: AdamW, one cosine, MSE, gradients clipped to 1.

    Args:
        width: of the hidden layer. `epochs`: over all that was added. `batch`: tokens of a step. `lr`: at the start.
    """

    def __init__(self, layers: int, size: int, heads: int, width: int, epochs: int, batch: int, lr: float):
        self.shape, self.epochs, self.batch, self.lr = (layers, size, heads, width), epochs, batch, lr
        self.pairs: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(layers)]

    def add(self, layer: int, x: Tensor, y: Tensor) -> None:
        """x [n, size] and y [n, heads] of one text; kept, in bf16, until `fitted`."""
        self.pairs[layer].append((x.to("cpu", torch.bfloat16), y.float().cpu()))

    def fitted(self) -> Surrogate:
        """The network after the last step; torch's generator draws its first weights and the order of the tokens."""
        x, y = (torch.stack([torch.cat([pair[i] for pair in layer]) for layer in self.pairs]) for i in (0, 1))
        network, count = Surrogate(*self.shape), x.shape[1]
        with torch.no_grad():
            network.leave_bias.copy_(y.mean(1, keepdim=True))
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.lr)
        steps = self.epochs * math.ceil(count / self.batch)
        done = 0
        for _ in range(self.epochs):
            for rows in torch.randperm(count).split(self.batch):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * warmup_cosine(done, steps, 1 / steps)
                optimizer.zero_grad(set_to_none=True)
                F.mse_loss(network(x[:, rows].float()), y[:, rows]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                done += 1
        return network.requires_grad_(False)


def sizes(model: PreTrainedModel) -> tuple[int, int, int]:
    """Of a model: compressed layers, hidden size, KV heads."""
    layers, _, heads = shape(model)
    return layers, int(family_of(model).stack(model).config.hidden_size), heads


def some(rng: random.Random, count: int, most: int) -> Sequence[int]:
    """At most `most` of the numbers below `count`, ascending."""
    return range(count) if count <= most else sorted(rng.sample(range(count), most))
