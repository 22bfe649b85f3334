"""A KV connector for vLLM that puts compressed contexts of a segment store into its cache.

    vllm serve MODEL --no-enable-prefix-caching --kv-transfer-config '{
      "kv_connector": "Connector", "kv_connector_module_path": "laconic.vllm.connector", "kv_role": "kv_consumer",
      "kv_connector_extra_config": {"store": "FOLDER", "namespace": "default"}}'

A request names its context in `kv_transfer_params`; its prompt begins with as many placeholders as the context has entries
(`HandedOver.prompt_ids`). The scheduler's half counts these as computed, the worker's half writes the entries into the
blocks that they were given. Whatever is wrong with a context fails its request: placeholders are never read as text.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorBase_V1, KVConnectorMetadata, KVConnectorRole

from laconic.errors import LaconicError, StoreError
from laconic.memory.store import SegmentStore
from laconic.vllm.contexts import FORMAT, KIND, PARAMETER
from laconic.vllm.weights import of_folder

log = logging.getLogger(__name__)
TESTED = ("CPU_ATTN",)
"""Attention backends whose answers were compared with transformers, token by token."""
_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True)
class Load:
    """Entries to be written for one request.

    Attributes:
        key: of the context; "" where the request has to fail. `entries`: how many; `blocks`: where they go.
    """

    key: str
    entries: int
    blocks: list[int]


@dataclass
class Loads(KVConnectorMetadata):
    """What the scheduler tells the worker before a pass."""

    loads: list[Load] = field(default_factory=list)


class Connector(KVConnectorBase_V1):
    """Serves contexts that `laconic.vllm.hand_over` has stored. Both halves; vLLM makes one of each.

    Its settings (`kv_connector_extra_config`): `store`, a folder; `namespace` ("default"); `any_backend`, to run on an
    attention backend that was not compared with transformers.

    Raises:
        ValueError: settings that would give wrong answers.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any):
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        own = self._kv_transfer_config.kv_connector_extra_config
        _check(vllm_config, own)
        self._store = SegmentStore(own["store"], namespace=own.get("namespace", "default"))
        self._any_backend = bool(own.get("any_backend", False))
        self._block = vllm_config.cache_config.block_size
        self._weights = _weights_of(vllm_config.model_config.model) if role == KVConnectorRole.SCHEDULER else ""
        self._chosen: dict[str, str] = {}
        self._waiting: list[Load] = []
        self._failed: set[int] = set()

    # -- in the scheduler ------------------------------------------------------------------------------------------
    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        """How many of the prompt's tokens the context stands for; one, which then fails to load, where it cannot be had."""
        wanted = (request.kv_transfer_params or {}).get(PARAMETER)
        if wanted is None:
            return 0, False
        try:
            entries, key = self._entries(wanted, request.num_prompt_tokens), wanted
        except LaconicError as error:
            log.warning("request %s fails: %s", request.request_id, error)
            entries, key = min(1, request.num_prompt_tokens - 1), ""
        self._chosen[request.request_id] = key
        return max(0, entries - num_computed_tokens), False

    def _entries(self, key: Any, tokens: int) -> int:
        """Of a context that a prompt of so many tokens may ask.

        Raises:
            LaconicError: there is none such, or it does not fit the prompt or the model.
        """
        entry = self._store.entry(key) if isinstance(key, str) else None
        if entry is None or entry.facts.get("kind") != KIND:
            raise StoreError(f"{self._store.folder} holds no context {str(key)[:80]!r} for vLLM; hand it over first.")
        if entry.facts["format"] != str(FORMAT):
            raise StoreError(
                f"context {key} has format {entry.facts['format']}; this laconic reads {FORMAT}. Hand it over anew."
            )
        if entry.facts["weights"] != self._weights:
            raise StoreError(f"context {key} was made with other weights than those that are served here.")
        entries = int(entry.facts["entries"])
        if tokens <= entries:
            raise StoreError(
                f"context {key} has {entries} entries, and the prompt {tokens} tokens: begin it with {entries} placeholders "
                "and go on with the question (HandedOver.prompt_ids)."
            )
        return entries

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note which blocks the entries go into."""
        key = self._chosen.pop(request.request_id, None)
        if key is not None and num_external_tokens:
            self._waiting.append(Load(key, num_external_tokens, list(blocks.get_block_ids()[0])))

    def build_connector_meta(self, scheduler_output: Any) -> Loads:
        """What the next pass has to load."""
        loads, self._waiting = Loads(self._waiting), []
        return loads

    # -- in the worker ---------------------------------------------------------------------------------------------
    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Write the entries of all new requests, layer by layer."""
        found = self._get_connector_metadata()
        assert isinstance(found, Loads)
        layers = forward_context.no_compile_layers
        for load in found.loads:
            try:
                self._write(load, layers)
            except (LaconicError, OSError, KeyError) as error:
                log.warning("context %s cannot be loaded: %s", load.key, error)
                self._failed.update(load.blocks[: -(-load.entries // self._block)])

    def _write(self, load: Load, layers: dict[str, Any]) -> None:
        """The entries of one request into their slots, by the backend's own function, which knows the layout."""
        path = self._store.get(load.key) if load.key else None
        if path is None:
            raise StoreError("it is not there.")
        at = torch.arange(load.entries)
        slots = torch.tensor(load.blocks)[at // self._block] * self._block + at % self._block
        with safe_open(path, framework="pt") as file:
            for name, layer in layers.items():
                numbered = _LAYER.search(name)
                if numbered is None or "vision" in name or not hasattr(layer, "kv_cache"):
                    continue
                self._check_backend(layer)
                cache = layer.kv_cache
                keys, values = (file.get_tensor(f"{kind}.{numbered[1]}") for kind in ("keys", "values"))
                given = (x.to(cache.device, layer.kv_cache_torch_dtype) for x in (keys, values))
                layer.impl.do_kv_cache_update(layer, *given, cache, slots.to(cache.device))

    def _check_backend(self, layer: Any) -> None:
        backend = layer.attn_backend.get_name()
        if backend not in TESTED and not self._any_backend:
            raise StoreError(
                f"contexts were compared with transformers on {', '.join(TESTED)} only, and this is {backend}; compare some "
                'answers yourself, and set "any_backend": true in kv_connector_extra_config.'
            )

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks that could not be written in this pass; vLLM fails their requests."""
        failed, self._failed = self._failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Everything was written before the pass."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing is taken out of vLLM's cache."""

    def wait_for_save(self) -> None:
        """See `save_kv_layer`."""


def _check(config: Any, own: dict[str, Any]) -> None:
    """Refuse settings that would give wrong answers."""
    if "store" not in own:
        raise ValueError('kv_connector_extra_config lacks "store": the folder that contexts were handed over into.')
    if unknown := set(own) - {"store", "namespace", "any_backend"}:
        raise ValueError(f"kv_connector_extra_config: unknown {sorted(unknown)}; there are store, namespace, any_backend.")
    if config.cache_config.enable_prefix_caching:
        raise ValueError(
            "prefix caching tells prompts apart by their ids, and the placeholders of all contexts are alike; start vLLM "
            "with --no-enable-prefix-caching."
        )
    if config.kv_transfer_config.kv_load_failure_policy != "fail":
        raise ValueError('kv_load_failure_policy must be "fail": placeholders must not be run in the place of a context.')
    if config.parallel_config.world_size > 1:
        raise ValueError(
            "contexts are loaded into one worker that holds all heads; use tensor and pipeline parallel size 1."
        )


def _weights_of(model: str) -> str:
    """The hash of the served checkpoint's attention projections."""
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, local_files_only=True))
    found = of_folder(folder)
    if found is None:
        raise ValueError(
            f"{model} has no safetensors files with attention projections, so contexts cannot be matched to it."
        )
    return found
