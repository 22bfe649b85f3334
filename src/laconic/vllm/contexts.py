"""Compressed contexts in the form in which `laconic.vllm.connector` serves them.

vLLM counts positions by entries: what follows n entries is token n. laconic's entries keep their positions, and what follows
a context of `seen` tokens is token `seen`. RoPE knows distances alone, so all keys are turned back by the same ``seen - n``
positions; every question finds them where it found them before, and the scores are those of laconic's own cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.cache.cache import CompressedCache
from laconic.cache.parts.base import Part
from laconic.cache.parts.ranked import turned
from laconic.engine.context import Context
from laconic.errors import UnsupportedModelError
from laconic.families import family_of
from laconic.memory.store import SegmentStore, segment_key
from laconic.stream.positions import SHIFT
from laconic.version import versions
from laconic.vllm.weights import of_model

FORMAT = 1
KIND = "vllm context"
"""The fact `kind` of such an entry of a store."""
HEADER = "laconic_vllm"
"""The key of the safetensors header that holds the facts, as JSON."""
PARAMETER = "laconic_context"
"""Names the context in a request's `kv_transfer_params`."""
LENGTH_DEPENDENT = ("dynamic", "longrope")


@dataclass(frozen=True)
class HandedOver:
    """A compressed context that vLLM can serve from a store.

    Attributes:
        key: of the entry in the store.
        entries: that every KV head of every layer holds; as many placeholders open a prompt.
        tokens: of the original context.
        filler: the placeholders' id, which nothing reads.
    """

    key: str
    entries: int
    tokens: int
    filler: int

    def prompt_ids(self, question: Sequence[int]) -> list[int]:
        """The ids of vLLM's prompt: placeholders, then the question's ids.

        Raises:
            ValueError: no question; vLLM has to run one token at least.
        """
        if not question:
            raise ValueError("question=[]: vLLM has to run one token at least after the context; give its ids.")
        return [self.filler] * self.entries + list(question)

    @property
    def parameters(self) -> dict[str, str]:
        """`kv_transfer_params` of a request over HTTP; in Python a key of that name in `SamplingParams.extra_args`."""
        return {PARAMETER: self.key}


def hand_over(context: Context, store: SegmentStore, *, ttl: float | None = None, pinned: bool = False) -> HandedOver:
    """Put a compressed context into a store, for vLLM.

    Args:
        context: that `laconic.read` has read; texts, saved contexts and memories that are prefixes, too. Images, where each
            token has one position.
        ttl, pinned: see `SegmentStore.put`.

    Raises:
        UnsupportedModelError: vLLM cannot hold it: heads or layers that keep different numbers of entries, entries that are
            packed or count more than once, layers without full attention, positions that are not one rotation per token.
        StoreError: it cannot be written.
    """
    model, cache = context.session.model, context.cache
    tensors = exported(model, cache)
    filler = model.config.get_text_config(decoder=True).pad_token_id or 0
    facts: dict[str, Any] = {
        "format": FORMAT,
        "entries": tensors["keys.0"].shape[0],
        "tokens": len(context.ids),
        "layers": len(tensors) // 2,
        "weights": of_model(family_of(model).stack(model)),
        "methods": [f"{method.name}:{method.budget}" for method in context.session.methods],
        "versions": versions(),
    }
    header = json.dumps(facts, sort_keys=True)
    key = segment_key(_bytes_of(tensors), method=KIND, artifact=str(FORMAT), model=facts["weights"])

    def write(path: Path) -> None:
        save_file(tensors, path, {HEADER: header})

    shown = {"kind": KIND} | {name: str(facts[name]) for name in ("format", "entries", "tokens", "weights")}
    store.put(key, write, facts=shown, ttl=ttl, pinned=pinned)
    return HandedOver(key, facts["entries"], len(context.ids), filler)


def exported(model: PreTrainedModel, cache: CompressedCache) -> dict[str, Tensor]:
    """`keys.i` and `values.i` [n, Hkv, D] of every decoder layer i, turned to where vLLM's count has them.

    Raises:
        UnsupportedModelError: see `hand_over`.
    """
    family = family_of(model)
    stack = family.stack(model)
    _check_model(stack, cache)
    family.check_undoing(stack, "vLLM's count of positions")
    layers = [_entries(number, layer.parts) for number, layer in enumerate(cache.compressed())]
    counts = [keys.shape[2] for keys, _ in layers]
    if len(set(counts)) > 1:
        raise UnsupportedModelError(
            f"layers keep {min(counts)} to {max(counts)} entries, and vLLM has one number for all; use a method that "
            "spreads its budget evenly."
        )
    tensors: dict[str, Tensor] = {}
    for i, ((keys, values), layer) in enumerate(zip(layers, cache.compressed(), strict=True)):
        shift = layer.state.get(SHIFT)
        by = counts[0] - layer.seen + (0 if shift is None else int(shift[0]))
        turn = torch.full(keys.shape[:3], by, device=keys.device)
        keys = turned(keys, turn, partial(family.cos_sin, stack, i))
        tensors |= {f"keys.{i}": keys[0].transpose(0, 1).cpu().contiguous()}
        tensors |= {f"values.{i}": values[0].transpose(0, 1).cpu().contiguous()}
    return tensors


def _check_model(stack: PreTrainedModel, cache: CompressedCache) -> None:
    config: Any = stack.config
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind in LENGTH_DEPENDENT:
        raise UnsupportedModelError(
            f"RoPE of type {kind!r} turns by other frequencies the longer a prompt is, so entries cannot be moved; serve "
            "this model with `laconic serve`."
        )
    if cache.left_alone or getattr(config, "no_rope_layers", None):
        raise UnsupportedModelError(
            "this model has layers without full attention, or without RoPE, which hold no entries to hand over; serve it "
            "with `laconic serve`."
        )


def _entries(layer: int, parts: list[Part]) -> tuple[Tensor, Tensor]:
    """Keys and values [1, Hkv, n, D] of a layer.

    Raises:
        UnsupportedModelError: they are not what vLLM stores.
    """
    for part in parts:
        if not part.plain:
            raise UnsupportedModelError(
                f"layer {layer} stores entries of the kind {part.kind!r}, whose heads hold different numbers, are packed "
                "or count more than once; vLLM stores one plain entry per token and head. Use a method that keeps the same "
                "number in every head, and vLLM's own --kv-cache-dtype to pack."
            )
    stored = [part.padded() for part in parts]
    keys, values = torch.cat([x[0] for x in stored], 2), torch.cat([x[1] for x in stored], 2)
    if len(keys) > 1:
        raise UnsupportedModelError(f"the cache holds {len(keys)} sequences; hand over one context at a time.")
    return keys, values


def _bytes_of(tensors: dict[str, Tensor]) -> bytes:
    """What tells these tensors from others."""
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        digest.update(f"{name}{x.dtype}{tuple(x.shape)}".encode())
        digest.update(x.view(torch.uint8).numpy().data)
    return digest.digest()
