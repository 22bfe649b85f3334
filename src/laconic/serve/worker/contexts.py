"""Contexts in the store: made once, opened once, and kept at hand while they are asked."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from laconic.cache.parts.base import DensePart
from laconic.cache.saved import SavedContext, load, save
from laconic.engine.context import Context, check_askable
from laconic.engine.engine import Engine, Request
from laconic.engine.going_on import go_on
from laconic.errors import LaconicError, SavedContextError, StoreError
from laconic.memory.store import SegmentStore
from laconic.method import find
from laconic.prompts.text import Prompt
from laconic.serve.compression import Compression, refused
from laconic.serve.job import Stored
from laconic.serve.refusal import NO_RETRY, Refusal
from laconic.serve.worker import identity, prompts
from laconic.serve.worker.prompts import Read

EMPTY_LINE = "\n\n"
"""Between the text of a context and a text that goes on from it; files of one context are joined by the same."""
AT_HAND = 64
"""Contexts whose files are kept open; those in memory are bounded by bytes."""


@dataclass(frozen=True)
class Wanted:
    """A context to be made: a text, with the system message or the turns before it, or turns alone; how it is compressed.

    Attributes:
        parent: where the context lies (`Stored`) that it goes on from; `text` or `messages` are what comes after that.
        within: the messages of a request that begins with it, and where in them it ends, see `prompts.cut`; its tokens are
            those of that prompt. `salt`: keeps it apart from others like it.
    """

    compress: Mapping[str, Any] | None
    text: str | None = None
    system: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    parent: Mapping[str, Any] | None = None
    within: Mapping[str, Any] | None = None
    salt: str | None = None

    @property
    def form(self) -> str:
        """See `Stored`."""
        return "turns" if self.text is None else "both" if self.messages else "text"


class Contexts:
    """The contexts of one model.

    Args:
        folder: of the store. `memory`: bytes of contexts that may stay in memory beside the one that is asked.
    """

    def __init__(self, engine: Engine, reader: Any, folder: Path | None, memory: int):
        self._engine, self._reader, self._folder, self._memory = engine, reader, folder, memory
        self._tokenizer = getattr(reader, "tokenizer", reader)
        self._model = identity.of_model(engine.model, reader)
        self._stores: dict[str, SegmentStore] = {}
        self._lock = threading.RLock()
        self._files: OrderedDict[tuple[str, str], tuple[SavedContext, Read]] = OrderedDict()
        self._open: OrderedDict[tuple[str, str], Context] = OrderedDict()

    # -- by the listening thread -----------------------------------------------------------------------------------
    def prepare(self, wanted: Wanted, max_context: int) -> dict[str, Any]:
        """What a context would be: its digest and its length.

        Raises:
            Refusal: it cannot be made.
        """
        whole, before = self._whole(wanted)
        ids, length = self._ids(whole, self._tokenizer)
        prompts.check_begins(ids, before)
        if length >= max_context:
            what = "context" if wanted.within is None else "prompt"
            raise Refusal(
                400,
                "context_length_exceeded",
                f"the {what} has {length:,} tokens; this model reads {max_context:,}, the question and answer included.",
                "messages" if wanted.text is None or wanted.within is not None else "text",
            )
        compression = Compression.wired(wanted.compress)
        methods = [] if compression is None else compression.build()
        try:
            check_askable(methods)
            protect = [] if compression is None else list(compression.protect)
            parent = None if wanted.parent is None else wanted.parent["key"]
            said = [message["content"] for message in whole.messages] if whole.text is None else whole.text
            new = [ids[len(before) :]]
            digest = identity.of_context(self._model, new, methods, protect, whole.form, said, parent, wanted.salt)
        except LaconicError as error:
            raise refused(error) from None
        shorten = [method.name for method in methods if method.before_reading]
        if shorten and (before or wanted.within is not None):
            what = "a prompt cannot begin with its contexts" if wanted.within is not None else "its contexts cannot go on"
            raise Refusal(
                400,
                "method_conflict",
                f"{shorten[0]} changes a text before it is read, so {what}; create one of all the text.",
                "parent" if before else "messages",
            )
        aware = [method.name for method in methods if find(method.name).query_aware]
        warned = [f"{name} chooses by the question, which was not known when this context was compressed." for name in aware]
        return {
            "tokens": len(ids),
            "digest": digest,
            "form": whole.form,
            "query_aware": bool(aware),
            "warnings": warned,
            "method": "+".join(method.name for method in methods) or None,
            "parameters": {name: value for method in methods for name, value in method.parameters().items()},
            "budget": None if not methods else str(methods[0].budget),
        }

    def read(self, stored: Stored) -> Read:
        """What a stored context was made of."""
        return self._file(stored)[1]

    def kept(self, stored: Stored, layer: int, head: int, text: bool) -> dict[str, Any]:
        """Which tokens a head of a layer stores.

        Raises:
            Refusal: no such layer or head.
        """
        saved, read = self._file(stored)
        cache = saved.cache()
        if layer not in cache.layer_ids:
            raise Refusal(400, "invalid_value", f"layer must be one of the compressed layers {cache.layer_ids}.", "layer")
        heads = next(iter(cache.compressed())).lengths.shape[1]
        if not 0 <= head < heads:
            raise Refusal(400, "invalid_value", f"head must be between 0 and {heads - 1}.", "head")
        kept = cache.kept(layer, head).tolist()
        runs = _runs(kept)
        found: dict[str, Any] = {"tokens": len(read.ids), "kept": len(kept), "runs": runs}
        if text:
            found["pieces"] = _pieces(self._tokenizer, read.ids, runs)
        return found

    def drop(self, stored: Stored) -> None:
        """A context was deleted: forget what is at hand of it."""
        key = stored.namespace, stored.key
        with self._lock:
            self._files.pop(key, None)
            self._open.pop(key, None)

    # -- by the model's thread -------------------------------------------------------------------------------------
    def build(self, stored: Stored, wanted: Wanted, limit: int | None) -> dict[str, Any]:
        """Read and compress a context, after its parent if it has one, and put it into the store.

        Args:
            limit: bytes of the tenant.

        Raises:
            Refusal: it cannot be compressed, or the store has no room.
        """
        compression = Compression.wired(wanted.compress)
        methods = () if compression is None else compression.build()
        protect = () if compression is None else compression.protect
        parent = self._parent(wanted)
        wanted, _ = self._whole(wanted)
        request = Request(
            context=wanted.text or "", system=wanted.system, history=wanted.messages, methods=methods, protect=protect
        )
        if wanted.text is None or wanted.parent is not None or wanted.within is not None:
            ids, _ = self._ids(wanted, self._engine.tokenizer)
            request = replace(request, prompt=Prompt(ids, [], True, ""))
        try:
            context = self._engine.read(request) if parent is None else go_on(self._engine, parent, request)
            store = SegmentStore(self._folder, namespace=stored.namespace, limit=limit)
            path = store.put(stored.key, lambda part: self._save(context, wanted, part))
        except StoreError as error:
            if stored_nowhere(error):
                raise Refusal(503, "disk_full", "the store has no space left.") from None
            raise Refusal(
                429, "quota_exceeded", "this context does not fit beside what is pinned.", headers=NO_RETRY
            ) from None
        except LaconicError as error:
            raise refused(error) from None
        stats, protected = context.stats, context.cache.protected
        with self._lock:
            self._open[stored.namespace, stored.key] = context
        return {
            "tokens": {"original": len(context.ids), "kept": round(sum(stats.entries) / len(stats.entries), 3)},
            "bytes": {"kv": stats.kv_bytes, "kv_full": stats.kv_bytes_full, "file": path.stat().st_size},
            "seconds": {"prefill": stats.prefill_seconds - stats.compress_seconds, "compress": stats.compress_seconds},
            "asked": stats.asked,
            "achieved": stats.achieved,
            "protected": [] if protected is None else _runs(protected[0].nonzero()[:, 0].tolist()),
            "warnings": context.notes,
        }

    def open(self, stored: Stored) -> Context:
        """A context, ready to be asked."""
        key = stored.namespace, stored.key
        with self._lock:
            context = self._open.pop(key, None)
        if context is None:
            context = self._engine.read(Request(saved=self._file(stored)[0]))
        with self._lock:
            self._open[key] = context
            while len(self._open) > 1 and sum(one.allocated for one in self._open.values()) > self._memory:
                self._open.popitem(last=False)
        return context

    def shares(self, stored: Stored) -> bool:
        """Whether several questions to it are worth one batch: rows of unequal heads run one after the other anyway."""
        layers = self._file(stored)[0].info["layers"]
        return all(set(layer.get("parts", ())) <= {DensePart.kind} for layer in layers)

    # -- both ------------------------------------------------------------------------------------------------------
    def _whole(self, wanted: Wanted) -> tuple[Wanted, list[int]]:
        """All that a context holds, and the token ids of its parent, which come first."""
        if wanted.parent is None:
            return wanted, []
        read = self.read(Stored(**wanted.parent))
        if wanted.text is None:
            return replace(wanted, messages=prompts.joined(wanted.messages, read)), read.ids
        text = wanted.text if read.text is None else read.text + EMPTY_LINE + wanted.text
        return replace(wanted, text=text, system=read.system, messages=read.messages), read.ids

    def _parent(self, wanted: Wanted) -> SavedContext | None:
        """The stored context that another goes on from.

        Raises:
            Refusal: it has been deleted since it was named, or is damaged.
        """
        try:
            return None if wanted.parent is None else self._file(Stored(**wanted.parent))[0]
        except Refusal as refusal:
            raise Refusal(409, "context_failed", f"its parent is gone: {refusal.message}", headers=NO_RETRY) from None

    def _ids(self, wanted: Wanted, tokenizer: Any) -> tuple[list[int], int]:
        """Token ids of a context, and the length of the prompt that it was cut from, if it was, or its own."""
        if wanted.within is not None:
            ids, length = prompts.cut(tokenizer, **wanted.within)
            return ids[:length], len(ids)
        if wanted.text is None:
            ids = prompts.closed(tokenizer, wanted.messages)
            return ids, len(ids)
        try:
            found = prompts.text.build(tokenizer, wanted.text, "?", system=wanted.system, history=wanted.messages)
        except LaconicError as error:
            raise Refusal(400, "invalid_value", str(error), "text") from None
        return found.context, len(found.context)

    def _file(self, stored: Stored) -> tuple[SavedContext, Read]:
        key = stored.namespace, stored.key
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
            store = self._stores.setdefault(stored.namespace, SegmentStore(self._folder, namespace=stored.namespace))
            try:
                path = store.get(stored.key)
                saved = None if path is None else load(path, self._engine.model, self._tokenizer)
            except (StoreError, SavedContextError):
                raise Refusal(
                    409, "context_failed", "the stored context is damaged; create it again.", headers=NO_RETRY
                ) from None
            if saved is None or saved.input_ids is None:
                raise Refusal(404, "context_not_found", "there is no such context.")
            ids = saved.input_ids[0].tolist()
            facts: dict[str, Any] = {"text": saved.text, "messages": ()} if stored.form == "text" else json.loads(saved.text)
            read = Read(ids, facts.get("text"), saved.system, facts["messages"])
            self._files[key] = saved, read
            while len(self._files) > AT_HAND:
                self._files.popitem(last=False)
            return saved, read

    def _save(self, context: Context, wanted: Wanted, path: Path) -> None:
        if wanted.form == "text" or context.kept is not None:  # which refuses to save what stands for a memory
            context.save(path)
            return
        save(
            context.cache,
            path,
            model=self._engine.model,
            methods=context.session.methods,
            tokenizer=self._tokenizer,
            input_ids=torch.tensor([context.ids]),
            text=json.dumps({"messages": list(wanted.messages), "text": wanted.text}),
        )


def stored_nowhere(error: StoreError) -> bool:
    """Whether the disk, not the quota, had no room."""
    cause = error.__cause__
    return isinstance(cause, OSError)


def _runs(kept: Sequence[int]) -> list[list[int]]:
    """Ascending indices as [start, length] of stretches without a gap."""
    runs: list[list[int]] = []
    for index in kept:
        if runs and runs[-1][0] + runs[-1][1] == index:
            runs[-1][1] += 1
        elif not runs or index >= runs[-1][0] + runs[-1][1]:  # a token may be stored twice, in its own entry and in a mean
            runs.append([index, 1])
    return runs


def _pieces(tokenizer: Any, ids: Sequence[int], runs: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """The text in stretches that stay and stretches that do not."""
    pieces, at = [], 0
    for start, length in [*runs, (len(ids), 0)]:
        for begin, end, kept in ((at, start, False), (start, start + length, True)):
            if end > begin:
                pieces.append({"text": tokenizer.decode(list(ids[begin:end])), "kept": kept})
        at = start + length
    return pieces
