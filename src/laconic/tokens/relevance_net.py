"""The small convolution network that turns first-layer attention into relevance, and its file (arXiv 2506.01097)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from laconic.errors import RecipeError
from laconic.recipe import SHIPPED, fingerprint

CHANNELS = (1, 32, 64, 128, 256, 512)


class RelevanceNet(nn.Module):
    """Five depth-wise separable convolutions along the visual tokens, 1 -> 32 -> 64 -> 128 -> 256 -> 512 channels, then 1x1
    to one. Fully convolutional, so it takes any number of tokens.

    Attention is divided by its mean over the tokens first, so that it does not shrink with their number.

    Args:
        kernel: width of the convolutions, odd.
    """

    def __init__(self, kernel: int = 5):
        super().__init__()
        self.kernel = kernel
        blocks = []
        for before, after in pairwise(CHANNELS):
            blocks += [
                nn.Conv1d(before, before, kernel, padding=kernel // 2, groups=before),
                nn.Conv1d(before, after, 1),
                nn.BatchNorm1d(after),
                nn.ReLU(),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv1d(CHANNELS[-1], 1, 1)

    def forward(self, attention: Tensor) -> Tensor:
        """Attention that visual tokens get from the instruction, [B, v] -> logits of their relevance, fp32 [B, v]."""
        x = attention.float()
        x = x / x.mean(-1, keepdim=True).clamp(min=1e-12)
        return self.head(self.blocks(x[:, None]))[:, 0]


@dataclass
class Compressor:
    """A trained network and what it belongs to.

    Attributes:
        model, fingerprint: the host that it was trained for; the fingerprint is None for any host.
        made: how it was made, for people.
    """

    net: RelevanceNet
    model: str = ""
    fingerprint: str | None = None
    made: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, fp32."""
        about = {"method": "explainability", "model": self.model, "fingerprint": self.fingerprint, "kernel": self.net.kernel}
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.net.state_dict().items()}
        save_file(tensors, path, {"laconic": json.dumps({**about, "made": self.made})})


def load(path: str | Path) -> Compressor:
    """The network in a safetensors file, frozen, in eval mode (its batch norms must not see single prompts); raises
    `RecipeError` when it is none."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["laconic"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        net = RelevanceNet(about["kernel"])
        net.load_state_dict(tensors)
        return Compressor(net.eval().requires_grad_(False), about["model"], about["fingerprint"], about["made"])
    except FileNotFoundError:
        raise RecipeError(f"weights {str(path)!r} do not exist. Shipped ones: {', '.join(shipped()) or 'none'}.") from None
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{str(path)!r} holds no weights that `laconic train explainability` wrote: {error}") from error


def shipped() -> list[str]:
    """Names of the networks that come with laconic."""
    return sorted(path.stem for path in SHIPPED.glob("explainability-*.safetensors"))


def find(model: nn.Module, given: str | None) -> Compressor:
    """The network for `model`: the `given` file or shipped name, or the shipped one trained for these very weights.

    Raises:
        RecipeError: there is none, or it belongs to another model.
    """
    own = fingerprint(model)
    make = "train one with `laconic train explainability --model MODEL --out DIR` and pass weights=FILE"
    if given is not None:
        found = load(SHIPPED / f"{given}.safetensors" if given in shipped() else given)
        if found.fingerprint not in (None, own):
            raise RecipeError(f"weights {given!r} were trained for another model ({found.model}); {make}.")
        return found
    for name in shipped():
        found = load(SHIPPED / f"{name}.safetensors")
        if found.fingerprint == own:
            return found
    raise RecipeError(f"explainability needs a trained network and none is shipped for this model; {make}.")
