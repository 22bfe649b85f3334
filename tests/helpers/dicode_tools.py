"""A DiCoDe with random weights, small enough for a test: clips of 4 frames of 8 pixels, 3 tokens of 4 numbers a border."""

from pathlib import Path

import torch

from laconic.artifact import Artifact, numbers
from laconic.methods.codecs.dicode.network import DiCoDeNet, Sizes
from laconic.tasks.scenes.flights import FLIGHT_WORDS

TINY = {
    "size": 8,
    "patch": 4,
    "frames": 4,
    "tokens": 3,
    "numbers": 4,
    "width": 16,
    "depth": 2,
    "reader": 1,
    "heads": 2,
    "lm_width": 16,
    "lm_depth": 2,
    "components": 2,
    "borders": 4,
}


def tiny_dicode(seed: int = 0, **changes) -> DiCoDeNet:
    torch.manual_seed(seed)
    return DiCoDeNet(Sizes(**{**TINY, **changes})).eval()


def dicode_artifact(path: Path, **changes) -> str:
    """The artifact of `tiny_dicode`, written to `path`."""
    net = tiny_dicode(**changes)
    data = {"sizes": net.sizes.as_dict(), "words": list(FLIGHT_WORDS)}
    Artifact.of("dicode", "trained", None, data, numbers(net)).save(path)
    return str(path)
