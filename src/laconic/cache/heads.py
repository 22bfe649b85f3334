"""Which heads of a model a method uses: lists of head numbers by layer, how they are written, and how heads are ranked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedModel

from laconic.cache.cache import CompressedCache
from laconic.errors import ArtifactError
from laconic.families import family_of

HeadList = str | Sequence[Sequence[int]]
"""``"all"``, ``"no"``, text such as ``"L0H1+L2H3"`` (layer 0, head 1 and layer 2, head 3), or head numbers by layer.
Layers are numbered as they are compressed: full-attention layers only, from 0."""

_HEAD = re.compile(r"L(\d+)H(\d+)")


def shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """Numbers of compressed layers, query heads and KV heads of a model."""
    config = family_of(model).stack(model).config
    heads = config.num_attention_heads
    return len(CompressedCache(config).layer_ids), heads, getattr(config, "num_key_value_heads", None) or heads


def resolve(heads: HeadList, layers: int, count: int) -> list[list[int]]:
    """Head numbers of every layer, in the order given, for a model of `layers` compressed layers of `count` heads.

    Raises:
        ArtifactError: the text cannot be read, or the model has no such layer or head.
    """
    if isinstance(heads, str):
        found = _parse(heads, layers, count)
    else:
        found = [[int(head) for head in layer] for layer in heads]
    if len(found) != layers:
        raise ArtifactError(f"heads are given for {len(found)} layers, but the model has {layers} compressed layers.")
    for layer, row in enumerate(found):
        wrong = [head for head in row if not 0 <= head < count]
        if wrong or len(set(row)) != len(row):
            raise ArtifactError(f"heads {row} of layer {layer}: give different numbers from 0 to {count - 1}.")
    return found


def _parse(text: str, layers: int, count: int) -> list[list[int]]:
    if text in ("all", "no"):
        return [list(range(count)) if text == "all" else [] for _ in range(layers)]
    found: list[list[int]] = [[] for _ in range(layers)]
    for piece in text.split("+"):
        match = _HEAD.fullmatch(piece.strip())
        if match is None:
            raise ArtifactError(f"heads={text!r}: write 'all', 'no', or heads such as L0H1+L2H3; {piece!r} is neither.")
        if int(match[1]) >= layers:
            raise ArtifactError(f"heads={text!r}: layer {match[1]} is not one of the {layers} compressed layers.")
        found[int(match[1])].append(int(match[2]))
    return found


def write(heads: Sequence[Sequence[int]]) -> str:
    """Head numbers by layer as text for a method's ``heads=``."""
    return "+".join(f"L{layer}H{head}" for layer, row in enumerate(heads) for head in row) or "no"


def highest(scores: Sequence[Sequence[float]], ratio: float) -> set[tuple[int, int]]:
    """The ``round(ratio * heads)`` best (layer, head) pairs of the whole model; equal scores go to the earlier head."""
    ranked = sorted(((-score, layer, head) for layer, row in enumerate(scores) for head, score in enumerate(row)))
    return {(layer, head) for _, layer, head in ranked[: round(ratio * len(ranked))]}
