"""What a worker does with a message: small things at once, beside the model; batches and contexts in turn, on it."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from laconic.artifact import fingerprint
from laconic.engine.engine import Engine
from laconic.engine.warm_up import warm_up
from laconic.loading import load, tokenizer_of
from laconic.prompts.text import Prompt
from laconic.serve.compression import Compression
from laconic.serve.job import Job, Stored
from laconic.serve.refusal import Refusal, invalid
from laconic.serve.wire import Wire
from laconic.serve.worker import prompts
from laconic.serve.worker.answering import Answering, rows_of
from laconic.serve.worker.contexts import Contexts, Wanted
from laconic.serve.worker.prompts import Prepared
from laconic.serve.worker.rows import Row
from laconic.version import versions

Message = dict[str, Any]
MEMORY = 2 * 2**30
"""Bytes of contexts that stay in memory, unless the settings say otherwise."""


class Desk:
    """One model and what is asked of it.

    Args:
        settings: ``path``, ``dtype``, ``device`` and ``threads`` of the model; ``max_context``; ``presets`` to warm up;
            ``store``, its folder; ``memory_bytes`` of contexts that stay in memory; ``refuse_special``: no control tokens in
            the text of messages.

    Attributes:
        facts: of the model, for the front.
    """

    def __init__(self, wire: Wire, settings: Mapping[str, Any]):
        if settings.get("threads"):
            torch.set_num_threads(settings["threads"])
        model, reader = load(settings["path"], dtype=settings.get("dtype", "auto"), device=settings.get("device"))
        self._wire, self.engine = wire, Engine(model, reader)
        self.reader = copy.deepcopy(reader)  # a fast tokenizer is for one thread at a time
        self.tokenizer = tokenizer_of(self.reader)
        self.vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
        self.max_context = settings.get("max_context") or window(model)
        self._refuses = bool(settings.get("refuse_special"))
        self._answering = Answering(self.engine, wire.send)
        folder = settings.get("store")
        self.contexts = Contexts(
            self.engine, self.reader, None if folder is None else Path(folder), settings.get("memory_bytes", MEMORY)
        )
        self._lock = threading.Lock()
        self._rows: dict[str, list[Row]] = {}
        self._prepared: dict[str, Prepared] = {}
        self._running: set[str] = set()
        for preset in settings.get("presets", ()):
            compression = Compression.wired(preset)
            assert compression is not None
            warm_up(model, Prompt(list(range(8)), [], False, ""), compression.build())
        self.facts = self._facts()

    def _facts(self) -> dict[str, Any]:
        model = self.engine.model
        parts = {
            "weights": fingerprint(model),
            "dtype": str(model.dtype).removeprefix("torch."),
            "template": hashlib.sha256(str(getattr(self.reader, "chat_template", "")).encode()).hexdigest(),
            "versions": versions(),
        }
        return {
            "family": model.config.model_type,
            "modalities": ["text"] if self.reader is self.tokenizer else ["text", "image"],
            "max_context": self.max_context,
            "dtype": parts["dtype"],
            "device": model.device.type,
            "fingerprint": parts["weights"],
            "system_fingerprint": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8],
            "chat": bool(getattr(self.reader, "chat_template", None)),
        }

    # -- beside the model: the listening thread --------------------------------------------------------------------
    def hear(self, message: Message) -> bool:
        """Do what needs no model; True for what does.

        Raises:
            Refusal: a request that cannot be answered.
        """
        op: str = message["op"]
        if op in ("run", "build"):
            return True
        handlers: dict[str, Callable[[Message], Message | None]] = {
            "prepare": self._prepare,
            "prepare_context": self._prepare_context,
            "kept": self._kept,
            "drop": self._drop,
            "cancel": self._cancel,
            "tokenize": self._tokenize,
            "detokenize": self._detokenize,
        }
        reply = handlers[op](message)
        if reply is not None:
            self._wire.send({"event": "reply", "id": message["id"], **reply})
        return False

    def _prepare(self, message: Message) -> Message:
        """Build the prompt of a job, which will be run later, and say what it comes to."""
        job = Job.wired(message["job"])
        prepared = self._prompt(job)
        rows = rows_of(job, prepared, self.max_context, self.vocabulary)
        with self._lock:
            self._prepared[job.id], self._rows[job.id] = prepared, rows
        return {"tokens": len(prepared.ids), "shares": self._shares(job)}

    def _prompt(self, job: Job) -> Prepared:
        if job.prompt is not None:
            return prompts.completion(self.tokenizer, job.prompt)
        self._check(job.messages)
        context = None if job.context is None else self.contexts.read(job.context)
        return prompts.chat(self.reader, job.messages, context, job.whole)

    def _shares(self, job: Job) -> bool:
        """Whether the job may share a batch: each of its rows keeps what it would keep alone, and costs less."""
        if job.context is not None:
            return self.contexts.shares(job.context)
        compression = Compression.wired(job.compress)
        methods = [] if compression is None else compression.build()
        return not job.shows_images and not any(m.uneven or m.packs or m.in_bytes for m in methods)

    def _prepare_context(self, message: Message) -> Message:
        wanted = Wanted(**message["wanted"])
        self._check([*({"content": text} for text in (wanted.text, wanted.system) if text), *wanted.messages])
        return self.contexts.prepare(wanted, self.max_context)

    def _check(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if self._refuses:
            prompts.refuse_specials(self.tokenizer, messages)

    def _kept(self, message: Message) -> Message:
        return self.contexts.kept(Stored(**message["context"]), message["layer"], message["head"], message["text"])

    def _drop(self, message: Message) -> None:
        self.contexts.drop(Stored(**message["context"]))

    def _cancel(self, message: Message) -> None:
        """End a request that runs at its next token; forget one that waits."""
        with self._lock:
            for row in self._rows.get(message["id"], ()):
                row.cancelled = True
            if message["id"] not in self._running:
                self._forget(message["id"])

    def _forget(self, request: str) -> None:
        self._prepared.pop(request, None)
        self._rows.pop(request, None)

    def _tokenize(self, message: Message) -> Message:
        if "messages" in message:
            return {"tokens": prompts.chat(self.reader, message["messages"]).ids}
        return {"tokens": list(self.tokenizer.encode(message["text"], add_special_tokens=message["specials"]))}

    def _detokenize(self, message: Message) -> Message:
        if any(token >= len(self.tokenizer) for token in message["tokens"]):
            raise invalid("tokens", f"tokens holds ids beyond the vocabulary of {len(self.tokenizer)}.")
        return {"text": self.tokenizer.decode(message["tokens"])}

    # -- on the model: the main thread -----------------------------------------------------------------------------
    def work(self, message: Message) -> None:
        """Build a context, or answer a batch of jobs."""
        if message["op"] == "build":
            self._build(message)
        else:
            self._answer(message)

    def _build(self, message: Message) -> None:
        stored, wanted = Stored(**message["context"]), Wanted(**message["wanted"])
        try:
            facts = self.contexts.build(stored, wanted, message["limit"])
        except Refusal as error:
            self._wire.send({"event": "failed", "id": message["id"], "count": 0, "error": error.facts()})
        else:
            self._wire.send({"event": "built", "id": message["id"], "facts": facts})

    def _answer(self, message: Message) -> None:
        """Answer jobs that were prepared; those that were cancelled meanwhile are left out."""
        jobs = [Job.wired(facts) for facts in message["jobs"]]
        with self._lock:
            jobs = [job for job in jobs if job.id in self._rows]
            self._running = {job.id for job in jobs}
            prepared, rows = [self._prepared[job.id] for job in jobs], [self._rows[job.id] for job in jobs]
        try:
            if jobs:
                stored = jobs[0].context
                context = None if stored is None else self.contexts.open(stored)
                self._answering.run(jobs, prepared, rows, context)
        except Refusal as error:
            for job in jobs:
                self._wire.send({"event": "failed", "id": job.id, "count": 0, "error": error.facts()})
        finally:
            with self._lock:
                self._running = set()
                for job in jobs:
                    self._forget(job.id)


def window(model: Any) -> int:
    """How many tokens a model reads."""
    config = model.config.get_text_config(decoder=True)
    return int(getattr(config, "max_position_embeddings", 0) or 4096)
