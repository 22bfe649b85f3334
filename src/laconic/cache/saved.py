"""Saved contexts: a compressed cache in one safetensors file, to be loaded in another process and asked many questions.

The file's header holds JSON that says what the tensors belong to (model and tokenizer by hash, methods, versions) with a
checksum of every tensor; a checksum of that JSON is stored beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from laconic.artifact import fingerprint, model_name
from laconic.atomic import replacing
from laconic.cache.cache import CompressedCache
from laconic.cache.described import described, rebuilt
from laconic.cache.layer import CompressedLayer
from laconic.cache.parts.base import KINDS
from laconic.errors import SavedContextError
from laconic.method import Method
from laconic.version import versions

FORMAT = 2
SETTINGS = (
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "attention_multiplier",
)
"""Settings of a decoder that change what a cache means and leave the weights as they are."""
_VOCABULARIES: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()
"""Tokenizer -> its number of tokens and their hash."""


def save(
    cache: CompressedCache,
    path: str | Path,
    *,
    model: PreTrainedModel,
    methods: Sequence[Method],
    tokenizer: Any = None,
    input_ids: torch.Tensor | None = None,
    text: str = "",
    system: str | None = None,
    images: int = 0,
) -> None:
    """Write `cache` with what is needed to continue from it. An existing file is replaced only when the new one is complete.

    Args:
        tokenizer: if given, loading with another one is refused.
        input_ids: the context's token ids [B, n], for building prompts that continue it; `text`, `system`: as text;
            `images`: how many it shows.

    Raises:
        SavedContextError: nothing has run yet, a layer cannot be saved, or the file cannot be written.
    """
    path = Path(path)
    if not cache.real or cache.unfinished:
        raise SavedContextError("there is no complete context to save; run the model on it first.")
    cache.settle()
    tensors: dict[str, torch.Tensor] = {}
    layers = [_layer_out(f"layer.{i}", layer, tensors) for i, layer in enumerate(cache.layers)]
    if input_ids is not None:
        tensors["input_ids"] = input_ids
    tensors["text"] = torch.frombuffer(bytearray(text.encode() or b"\0"), dtype=torch.uint8)
    tensors = {name: x.detach().to("cpu").contiguous() for name, x in tensors.items()}
    info = {
        "format": FORMAT,
        "model": model_name(model),
        "fingerprint": fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "settings": settings(model),
        "tokenizer": None if tokenizer is None else tokenizer_hash(tokenizer),
        "methods": [described(method) for method in methods if not method.before_reading],
        "tokens": cache.seen,
        "real": cache.real,
        "layers": layers,
        "entry_bytes": cache.entry_bytes,
        "kv_bytes": cache.nbytes,
        "text": bool(text),
        "system": system,
        "images": images,
        "versions": versions(),
        "sha256": {name: _checksum(x) for name, x in tensors.items()},
    }
    header = json.dumps(info, sort_keys=True)
    metadata = {"laconic": header, "sha256": hashlib.sha256(header.encode()).hexdigest()}
    try:
        with replacing(path) as unfinished:
            save_file(tensors, unfinished, metadata)
    except (OSError, SafetensorError) as error:
        raise SavedContextError(f"cannot write {path}: {error}.") from error


@dataclass
class SavedContext:
    """A compressed context on disk. Its tensors stay memory-mapped; `cache()` copies them once, into a cache that can grow.

    Attributes:
        info: the header: model, methods, tokens, bytes, versions.
        methods: what compressed it, with their parameters; `input_ids` [B, n], `text`, `system`: the context, where saved;
            `images`: how many it shows.
    """

    path: Path
    info: dict[str, Any]
    methods: tuple[Method, ...] = ()
    input_ids: torch.Tensor | None = None
    text: str = ""
    system: str | None = None
    images: int = 0
    _tensors: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    _model: PreTrainedModel | None = field(default=None, repr=False)

    def cache(self) -> CompressedCache:
        """A new cache that holds the context: pass it as ``past_key_values`` inside ``compress(model, *saved.methods)``."""
        assert self._model is not None
        cache = CompressedCache(self._model.config.get_text_config(decoder=True))
        device = self._model.device
        for i, (layer, facts) in enumerate(zip(cache.layers, self.info["layers"], strict=True)):
            _layer_in(f"layer.{i}", layer, facts, self._tensors, device)
        for layer in cache.compressed():
            for part in layer.parts:
                part.link(layer)
        cache.real, cache.entry_bytes = list(self.info["real"]), self.info["entry_bytes"]
        return cache


def load(path: str | Path, model: PreTrainedModel, tokenizer: Any = None) -> SavedContext:
    """Open a saved context for `model`, and check every byte of it.

    Raises:
        SavedContextError: no such file, truncated or altered, or made with another model, precision or tokenizer.
    """
    info = header(path)
    if info["fingerprint"] != fingerprint(model):
        raise SavedContextError(f"{path} was made with other weights ({info['model']}); load that model.")
    dtype = str(model.dtype).removeprefix("torch.")
    if info["dtype"] != dtype:
        raise SavedContextError(f"{path} holds {info['dtype']}, the model runs in {dtype}; load it in {info['dtype']}.")
    now = settings(model)
    for name, saved in info["settings"].items():
        if now[name] != saved:
            raise SavedContextError(
                f"{path} was made with {name}={saved}, the model has {now[name]}; load it with the former."
            )
    if tokenizer is not None and info["tokenizer"] not in (None, tokenizer_hash(tokenizer)):
        raise SavedContextError(f"{path} was made with another tokenizer, so its token ids mean something else.")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    for name, wanted in info["sha256"].items():
        if name not in tensors or _checksum(tensors[name]) != wanted:
            raise SavedContextError(f"{path} was altered: the checksum of {name} does not match; write it again.")
    ids = tensors.get("input_ids")
    text = bytes(tensors["text"].tolist()).decode() if info["text"] else ""
    methods = tuple(rebuilt(facts) for facts in info["methods"])
    return SavedContext(Path(path), info, methods, ids, text, info["system"], info["images"], tensors, model)


def header(path: str | Path) -> dict[str, Any]:
    """The JSON of a saved context, its own checksum checked; no tensor is read."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise SavedContextError(f"{path} does not exist.") from None
    except (OSError, SafetensorError) as error:
        raise SavedContextError(f"{path} is truncated or not a saved context: {error}.") from error
    text = metadata.get("laconic")
    if text is None:
        raise SavedContextError(f"{path} is a safetensors file, but not a context that laconic saved.")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("sha256"):
        raise SavedContextError(f"{path} was altered: the checksum of its header does not match.")
    info: dict[str, Any] = json.loads(text)
    if info["format"] != FORMAT:
        raise SavedContextError(f"{path} has format {info['format']}, but this version of laconic reads format {FORMAT}.")
    return info


def tokenizer_hash(tokenizer: Any) -> str:
    """A hash of the vocabulary: what every id stands for. Computed again only when tokens have been added."""
    known = _VOCABULARIES.get(tokenizer)
    if known is not None and known[0] == len(tokenizer):
        return known[1]
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    found = hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:32]
    _VOCABULARIES[tokenizer] = len(tokenizer), found
    return found


def settings(model: PreTrainedModel) -> dict[str, Any]:
    """What keys and values depend on beside the weights, by its name in the configuration of the decoder."""
    config = model.config.get_text_config(decoder=True)
    found = {name: getattr(config, name, None) for name in SETTINGS}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def _checksum(x: torch.Tensor) -> str:
    return hashlib.sha256(x.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _layer_out(name: str, layer: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Put a layer's tensors into `tensors` and return its plain facts."""
    if isinstance(layer, CompressedLayer):
        for j, part in enumerate(layer.parts):
            tensors.update({f"{name}.part.{j}.{key}": x for key, x in part.tensors().items()})
        tensors.update({f"{name}.state.{key}": x for key, x in layer.state.items()})
        facts = {"parts": [part.kind for part in layer.parts], "frozen": [part.frozen for part in layer.parts]}
        return facts | {"seen": layer.seen, "evicted": layer.evicted}
    if type(layer) is DynamicSlidingWindowLayer and layer.keys is not None and layer.values is not None:
        tensors |= {f"{name}.keys": layer.keys, f"{name}.values": layer.values}
        return {"sliding": layer.cumulative_length}
    raise SavedContextError(f"{name} is a {type(layer).__name__}, which cannot be saved yet; only attention layers can.")


def _layer_in(name: str, layer: Any, facts: dict[str, Any], tensors: dict[str, torch.Tensor], device: torch.device) -> None:
    if isinstance(layer, CompressedLayer):
        for j, (kind, frozen) in enumerate(zip(facts["parts"], facts["frozen"], strict=True)):
            part = KINDS[kind].from_tensors(_under(f"{name}.part.{j}.", tensors, device))
            part.frozen = frozen  # a method that packs must not take those of the context and its own for one
            layer.parts.append(part)
        layer.state = {key: x.clone() for key, x in _under(f"{name}.state.", tensors, device).items()}
        layer.seen, layer.evicted = facts["seen"], facts["evicted"]
        stored: Iterable[torch.Tensor] = _under(f"{name}.", tensors, device).values()
        layer.dtype, layer.device = next((x.dtype for x in stored if x.is_floating_point()), torch.float32), device
        layer.is_initialized = True
    else:
        own = _under(f"{name}.", tensors, device)
        layer.lazy_initialization(own["keys"], own["values"])
        layer.keys, layer.values, layer.cumulative_length = own["keys"].clone(), own["values"].clone(), facts["sliding"]


def _under(prefix: str, tensors: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): x.to(device) for name, x in tensors.items() if name.startswith(prefix)}
