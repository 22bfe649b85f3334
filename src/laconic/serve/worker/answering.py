"""Batches of requests, from the wire to the model and back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from laconic.engine.context import Context
from laconic.engine.engine import Engine
from laconic.errors import LaconicError
from laconic.serve.compression import Compression, refused
from laconic.serve.job import Job
from laconic.serve.refusal import Refusal, invalid
from laconic.serve.worker.batch import Figures, answer
from laconic.serve.worker.prompts import Prepared
from laconic.serve.worker.rows import Row
from laconic.serve.worker.sampling import Sampling
from laconic.session import Session

Send = Callable[[dict[str, Any]], None]


def rows_of(job: Job, prepared: Prepared, max_context: int, vocabulary: int) -> list[Row]:
    """The answers that a job asks for.

    Raises:
        Refusal: they do not fit into the model's window.
    """
    length = len(prepared.ids)
    room = max_context - length
    if room < 1 or (job.max_tokens or 0) > room:
        raise Refusal(
            400,
            "context_length_exceeded",
            f"the prompt has {length:,} tokens and the answer may have {job.max_tokens or 1:,}; this model reads "
            f"{max_context:,} in all.",
            "messages" if job.messages else "prompt",
        )
    bias = {int(token): value for token, value in job.sampling.get("logit_bias", {}).items()}
    if any(token >= vocabulary for token in bias):
        raise invalid("logit_bias", f"logit_bias names token ids beyond the vocabulary of {vocabulary}.")
    sampling = Sampling(**{**job.sampling, "logit_bias": bias})
    seed = random.getrandbits(48) if sampling.seed is None else sampling.seed
    return [
        Row(
            request=job.id,
            index=i,
            prompt=prepared.ids,
            sampling=replace(sampling, seed=seed + i),
            room=job.max_tokens or room,
            stops=job.stop,
            top_logprobs=job.top_logprobs,
            deadline=time.monotonic() + job.seconds,
        )
        for i in range(job.n)
    ]


class Answering:
    """Runs batches on one model, and reports every piece of text.

    Args:
        send: puts a message on the wire.
    """

    def __init__(self, engine: Engine, send: Send):
        self._engine, self._send = engine, send

    def run(
        self, jobs: Sequence[Job], prepared: Sequence[Prepared], rows: Sequence[list[Row]], context: Context | None
    ) -> None:
        """Answer jobs that share a context and a compression. Each gets ``done`` or ``failed`` in the end.

        Where memory runs out before anything was said, the batch is halved and tried once more.
        """
        try:
            self._together(jobs, prepared, rows, context)
        except RuntimeError as error:  # torch's error for memory on the CPU is a plain one
            if not _out_of_memory(error):
                raise
            if len(jobs) > 1 and not any(row.tokens for job in rows for row in job):
                half = len(jobs) // 2
                for part in (slice(None, half), slice(half, None)):
                    self._last_try(jobs[part], prepared[part], rows[part], context)
            else:
                self._fail(jobs, rows, _no_memory())

    def _last_try(self, jobs: Sequence[Job], prepared: Sequence[Prepared], rows: Sequence[list[Row]], context: Any) -> None:
        try:
            self._together(jobs, prepared, rows, context)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            self._fail(jobs, rows, _no_memory())

    def _together(self, jobs: Sequence[Job], prepared: Sequence[Prepared], rows: Sequence[list[Row]], context: Any) -> None:
        first = jobs[0]
        compression = Compression.wired(first.compress)
        try:
            session = context.session if context is not None else self._session(compression)
            flat = [row for job in rows for row in job]
            figures = answer(session, self._engine.tokenizer, flat, self._piece, context, prepared[0].inputs)
        except LaconicError as error:
            self._fail(jobs, rows, refused(error))
            return
        at = 0
        for job, ready, mine in zip(jobs, prepared, rows, strict=True):
            facts = _figures(figures, at, len(flat), ready, 0 if context is None else len(context.ids))
            facts["completion_tokens"] = sum(len(row.tokens) for row in mine)
            facts["methods"] = [method.name for method in session.methods]
            self._send({"event": "done", "id": job.id, "figures": facts})
            at += len(mine)

    def _session(self, compression: Compression | None) -> Session:
        if compression is None:
            return Session(self._engine.model)
        return Session(self._engine.model, compression.build(), compression.protect, self._engine.tokenizer)

    def _piece(self, row: Row, text: str, tokens: list[dict[str, Any]]) -> None:
        message = {"event": "piece", "id": row.request, "row": row.index, "text": text, "count": len(row.tokens)}
        if tokens:
            message["tokens"] = tokens
        if row.finish is not None:
            message["finish"] = row.finish
        self._send(message)

    def _fail(self, jobs: Sequence[Job], rows: Sequence[list[Row]], refusal: Refusal) -> None:
        for job, mine in zip(jobs, rows, strict=True):
            count = sum(len(row.tokens) for row in mine)
            self._send({"event": "failed", "id": job.id, "count": count, "error": refusal.facts()})


def _figures(figures: Figures, at: int, size: int, prepared: Prepared, cached: int) -> dict[str, Any]:
    """What the row `at` cost, as the front reports it; of a request's answers, which share their prompt, the first."""
    length = len(prepared.ids)
    return {
        "prompt_tokens": length,
        "cached_tokens": cached,
        "image_tokens": prepared.visual,
        "visual_kept": figures.visual_kept,
        "kept_tokens": round(figures.kept[at], 3),
        "kv_bytes": figures.kv_bytes[at],
        "kv_bytes_full": figures.kv_bytes_full[at],
        "asked": figures.asked,
        "achieved": figures.achieved,
        "seconds": {"prefill": figures.prefill, "compress": figures.compress, "decode": figures.decode},
        "batch": size,
        "warnings": figures.notes,
    }


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _no_memory() -> Refusal:
    return Refusal(503, "out_of_memory", "the model ran out of memory.", headers={"Retry-After": "5"})
