"""Which methods of the catalogue a stock vLLM can serve, and how."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.cache.contract import CacheMethod
from laconic.errors import LaconicError
from laconic.memory.contract import MemoryMethod, PrefixMethod
from laconic.method import Entry, list_methods
from laconic.session import Session
from laconic.shortening.contract import PromptMethod
from laconic.stream.contract import TokenMethod
from laconic.vllm.contexts import exported

DEPTH = 32
"""Layers of the model that methods on visual tokens are asked about."""
SEEN = {"image", "video", "any"}


def ways(model: PreTrainedModel, ids: Tensor) -> dict[str, list[str]]:
    """Names of methods by how what they make comes to vLLM; those that vLLM has no place for are left out.

    Args:
        model, ids: a small model and a prompt [1, n] that methods on the cache are tried on: what one keeps is handed over,
            or refused. Those that need an artifact, which such a model has none of, are left out, too.
    """
    known: dict[str, list[str]] = {}
    for entry in list_methods():
        if found := _way(entry, model, ids):
            known.setdefault(found, []).append(entry.name)
    return known


def _way(entry: Entry, model: PreTrainedModel, ids: Tensor) -> str:
    cls = entry.cls
    if issubclass(cls, PromptMethod):
        return "shortened text"
    if issubclass(cls, MemoryMethod):
        if "text" not in cls.reads:
            return ""
        return "context" if issubclass(cls, PrefixMethod) else "prompt_embeds"
    try:
        if issubclass(cls, TokenMethod) and entry.site in ("encoder", "tokens"):
            seen = SEEN & {one.strip() for one in entry.modality.split(",")}
            return "image features" if seen and not cls.rewrites_text and not any(cls().cuts(DEPTH)) else ""
        if issubclass(cls, CacheMethod):
            with Session(model, [cls(keep=0.5)]) as session, warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")
                model(ids)
                assert session.cache is not None
                exported(model, session.cache)
            return "context"
    except (LaconicError, ValueError, TypeError):
        return ""
    return ""
