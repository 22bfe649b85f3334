"""A codec with random weights, small enough for a test: 8 pixels, 4 tokens of 64 codes."""

from pathlib import Path

import torch

from laconic.artifact import Artifact, numbers
from laconic.methods.codecs.one_d_piece.method import OneDPiece
from laconic.methods.codecs.one_d_piece.network import OneDPieceNet, Sizes

SIZES = Sizes(size=8, patch=4, tokens=4, width=16, depth=1, heads=2, levels=(4, 4, 4))


def tiny_net(seed: int = 0, sizes: Sizes = SIZES, drop: bool = True) -> OneDPieceNet:
    torch.manual_seed(seed)
    return OneDPieceNet(sizes, drop)


def tiny_artifact(path: Path, seed: int = 0) -> str:
    """The artifact of `tiny_net`, written to `path`."""
    net = tiny_net(seed)
    Artifact.of("one_d_piece", "trained", None, SIZES.as_dict(), numbers(net)).save(path)
    return str(path)


def tiny_codec(folder: Path, **budget) -> OneDPiece:
    return OneDPiece(artifact=tiny_artifact(folder / "tiny.safetensors"), **budget)
