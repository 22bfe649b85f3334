"""A context from its segments, each of which is compressed once: those that a store knows cost no call of the compressor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.artifact import fingerprint
from laconic.errors import ConflictError
from laconic.measure.cost import Shape
from laconic.memory.compressor import SEGMENTS, Compressor
from laconic.memory.contract import MemoryMethod
from laconic.memory.entry import DamagedError, segment_key
from laconic.memory.store import SegmentStore
from laconic.version import versions

Piece = tuple[int, ...]


@dataclass(frozen=True)
class Pieced:
    """Soft tokens of a context.

    Attributes:
        soft: [m, d], fp32. `flops`: of what was compressed now.
        segments: how many the context has. `made`: how many of them the compressor read; equal ones are read once.
    """

    soft: Tensor
    flops: int
    segments: int
    made: int


@torch.no_grad()
def pieced(method: MemoryMethod, model: PreTrainedModel, ids: list[int], shape: Shape, store: SegmentStore) -> Pieced:
    """The soft tokens of a context, segment by segment from `store`; what it does not hold is compressed and put there. What
    is damaged in it counts as not there. `method` is attached.

    Raises:
        ConflictError: a method whose segments depend on one another or on their positions.
        StoreError: the store can be neither read nor written.
    """
    network = method.network
    if not isinstance(network, Compressor) or not network.independent:
        raise ConflictError(
            f"{method.name}: what it makes of a segment depends on what came before it, so no segment is used again; leave "
            "store out, or choose a method whose segments stand for themselves."
        )
    assert method.keep is not None
    parameters = {field.name: getattr(method, field.name) for field in fields(method) if field.name != "artifact"}
    about = {"method": f"{method.name} {parameters}, version {method.version}", "artifact": method.digest}
    own = f"{fingerprint(model)} {model.dtype} {versions()}"
    pieces = [tuple(ids[at : at + network.segment]) for at in range(0, len(ids), network.segment)]
    keys = {piece: segment_key(torch.tensor(piece).numpy().tobytes(), model=own, **about) for piece in pieces}
    known = {piece: soft for piece, key in keys.items() if (soft := _held(store, key)) is not None}
    missing = [piece for piece in keys if piece not in known]
    flops = 0
    for batch in _batches(missing):
        slots = network.count(len(batch[0]), method.keep)
        made = network.gain * network(model, torch.tensor(batch, device=model.device), slots)
        for piece, soft in zip(batch, made.cpu(), strict=True):
            _put(store, keys[piece], soft, len(piece), method)
            known[piece] = soft
            flops += network.flops(shape, len(piece), slots)
    parts = [known[piece] for piece in pieces]
    if (closing := network.closing()) is not None:
        parts.append(closing.cpu())
    return Pieced(torch.cat(parts), flops, len(pieces), len(missing))


def _batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    """Pieces of one length, at most `SEGMENTS` of them."""
    for length in sorted({len(piece) for piece in pieces}):
        alike = [piece for piece in pieces if len(piece) == length]
        for at in range(0, len(alike), SEGMENTS):
            yield alike[at : at + SEGMENTS]


def _held(store: SegmentStore, key: str) -> Tensor | None:
    try:
        path = store.get(key)
        return None if path is None else load_file(path)["soft"]
    except (DamagedError, FileNotFoundError):  # another process may remove it between the two
        return None


def _put(store: SegmentStore, key: str, soft: Tensor, tokens: int, method: MemoryMethod) -> None:
    def write(path: Path) -> None:
        save_file({"soft": soft.contiguous()}, path)

    store.put(key, write, facts={"kind": "segment", "tokens": str(tokens), "methods": f"{method.name}:{method.budget}"})
