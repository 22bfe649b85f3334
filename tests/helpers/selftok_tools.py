"""A Selftok with random weights, small enough for a test: 8 pixels, 4 tokens of 64 codes."""

from pathlib import Path

import torch
from torch import nn

from laconic.artifact import Artifact, numbers
from laconic.methods.codecs.selftok.network import SelfTokNet, Sizes

TINY = {
    "size": 8,
    "patch": 4,
    "tokens": 4,
    "levels": (4, 4, 4),
    "ends": (0.5, 1.0),
    "owned": (2, 2),
    "image_width": 16,
    "query_width": 16,
    "encoder": 1,
    "width": 16,
    "depth": 2,
    "heads": 2,
}


def tiny_selftok(seed: int = 0, opened: bool = True, **changes) -> SelfTokNet:
    """`opened`: with gates that are not 0, so that queries see the image."""
    torch.manual_seed(seed)
    net = SelfTokNet(Sizes(**{**TINY, **changes}))
    if opened:
        for block in net.encoder.blocks:
            nn.init.normal_(block.query.modulate.weight)
    return net.eval()


def selftok_artifact(path: Path, **changes) -> str:
    """The artifact of `tiny_selftok`, written to `path`."""
    net = tiny_selftok(**changes)
    Artifact.of("selftok", "trained", None, net.sizes.as_dict(), numbers(net)).save(path)
    return str(path)
