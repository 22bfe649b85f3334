"""Untrained networks of learned memories as artifacts of a tiny model: what is tested is how they are used."""

from typing import Any

import torch

from laconic.artifact import Artifact, numbers
from laconic.memory.compressor import Compressor, slots_of
from laconic.memory.contract import MemoryMethod
from laconic.method import find


def artifact_of(name: str, model: Any, network: Compressor, path: Any, **facts: Any) -> str:
    """Write the artifact of `network` with what its method reads, and return the method's text that uses it."""
    data = {"keeps": [0.5, 0.25], "segment": network.segment, **facts}
    Artifact.of(name, "trained", model, data, numbers(network)).save(path)
    return f"{name}:artifact={path}"


def one_by_one(network: Compressor, model: Any, ids: torch.Tensor, keep: float) -> torch.Tensor:
    """Soft tokens of one context [1, n], every segment by itself, concatenated."""
    pieces = ids.split(network.segment, 1)
    return network.gain * torch.cat([network(model, piece, slots_of(piece.shape[1], keep)) for piece in pieces], 1)


def method(text: str, keep: float = 0.5) -> MemoryMethod:
    """A memory method from its text."""
    name, _, artifact = text.partition(":artifact=")
    made = find(name).cls(keep=keep, artifact=artifact)
    assert isinstance(made, MemoryMethod)
    return made
