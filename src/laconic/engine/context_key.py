"""What a compressed context depends on, and so its key in a store: two readings with one key keep the same entries.

Not part of it: the device, the number of threads, and how questions are answered.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.artifact import Artifact, fingerprint
from laconic.cache.described import described
from laconic.cache.saved import FORMAT, settings, tokenizer_hash
from laconic.engine.request import Request
from laconic.errors import StoreError
from laconic.families.parameters import plain_parameters
from laconic.memory.store import segment_key
from laconic.method import Method, Protect
from laconic.prompts.text import Prompt
from laconic.version import versions

_HASHED: WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()


def context_key(model: PreTrainedModel, tokenizer: Any, request: Request, prompt: Prompt) -> str:
    """The key of the context that `request` reads.

    Args:
        prompt: of the request; its question has no part in the key.

    Raises:
        StoreError: something that the prompt brings has no bytes to be compared.
        SavedContextError: a parameter of a method that cannot be written down.
    """
    content = {
        "ids": prompt.context,
        "inputs": {name: _content(name, value) for name, value in sorted(prompt.inputs.items())},
        "text": request.context,
        "system": request.system,
        "chunk": request.chunk,
        "protect": _plain(request.protect),
    }
    how = method_facts(request.methods or ())
    return segment_key(
        _json(content).encode(),
        method=_json(how["methods"]),
        artifact=_json(how["artifacts"]),
        model=_json(model_facts(model, tokenizer)),
    )


def model_facts(model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
    """Everything of a model and its tokenizer that a compressed context depends on, as plain values."""
    return {
        "weights": weights_hash(model),
        "dtype": str(model.dtype),
        "settings": settings(model),
        "adapters": _adapters(model),
        "tokenizer": tokenizer_hash(tokenizer),
        "template": getattr(tokenizer, "chat_template", None),
        "format": FORMAT,
        "versions": versions(),
    }


def method_facts(methods: Sequence[Method]) -> dict[str, Any]:
    """`methods` with all their parameters and budgets, and `artifacts`, checksums of the files that they read."""
    return {
        "methods": [{**described(method), "protect": _plain(method.protect)} for method in methods],
        "artifacts": [_artifact(method) for method in _all(methods)],
    }


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of every byte of a model's parameters; computed anew when torch has counted a change of one.

    `fingerprint` samples each tensor, which is enough to refuse another model and not to tell two fine-tunings apart.
    """
    state = (fingerprint(model), *((x.data_ptr(), x._version) for x in model.parameters()))
    known = _HASHED.get(model)
    if known is not None and known[0] == state:
        return known[1]
    digest = hashlib.sha256()
    for name, weight in sorted(plain_parameters(model), key=lambda pair: pair[0]):
        _update(digest, name, weight)
    _HASHED[model] = state, digest.hexdigest()
    return digest.hexdigest()


def _update(digest: Any, name: str, x: Tensor) -> None:
    digest.update(f"{name}{x.dtype}{tuple(x.shape)}".encode())
    digest.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _content(name: str, value: Any) -> str:
    """A hash of something that the model gets besides the ids."""
    digest = hashlib.sha256()
    if isinstance(value, Tensor):
        _update(digest, name, value)
    elif isinstance(value, Sequence) and all(isinstance(x, Tensor) for x in value):
        for x in value:
            _update(digest, name, x)
    else:
        kind = type(value).__name__
        raise StoreError(f"this prompt brings {name}, a {kind}, which cannot be part of a key; read it without a store.")
    return digest.hexdigest()


def _all(methods: Sequence[Method]) -> Iterator[Method]:
    """The methods, and those inside them."""
    for method in methods:
        yield method
        yield from _all([x for f in dataclasses.fields(method) if isinstance(x := getattr(method, f.name), Method)])


def _artifact(method: Method) -> list[str]:
    """Checksums of the artifact files that a method may read: the given one, or those that are shipped for it."""
    if not hasattr(method, "artifact"):
        return []
    given = [method.artifact] if method.artifact is not None else Artifact.shipped(f"{method.name}-*")
    return [Artifact.checksum(name) for name in given]


def _adapters(model: nn.Module) -> list[str]:
    """Which adapters (peft) are at work, per layer."""
    return [
        f"{name}: {layer.active_adapters}, disabled={getattr(layer, 'disable_adapters', False)}"
        for name, layer in model.named_modules()
        if isinstance(getattr(type(layer), "active_adapters", None), property)
    ]


def _plain(protect: Protect) -> Any:
    return json.loads(_json(protect))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
