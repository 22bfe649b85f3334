"""One batch: rows that share a session, and a context if they ask one, decoded together by one call of `generate()`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from laconic.cache.cache import CompressedCache
from laconic.engine.context import Context
from laconic.engine.generation import ends_of_turn, opened
from laconic.measure.stats import Stats
from laconic.prompts.inputs import on_device
from laconic.serve.worker.rows import Answers, OnPiece, Row
from laconic.serve.worker.sampling import RowSampler
from laconic.session import Session


@dataclass
class Figures:
    """What a batch cost, measured when its prompts were in the cache.

    Attributes:
        kept: of each row, stored entries, mean over layers and heads. `kv_bytes`, `kv_bytes_full`: of each row.
        asked, achieved: share, of the batch.
        prefill, compress, decode: seconds, of the batch.
        visual_kept: visual tokens that ran through the layers, mean over layers, per row.
        notes: what methods warned about.
    """

    kept: list[float]
    kv_bytes: list[int]
    kv_bytes_full: list[int]
    asked: float
    achieved: float
    prefill: float
    compress: float
    decode: float
    visual_kept: float
    notes: list[str]


def answer(
    session: Session,
    tokenizer: Any,
    rows: Sequence[Row],
    on_piece: OnPiece,
    context: Context | None = None,
    inputs: dict[str, Any] | None = None,
) -> Figures:
    """Decode the answers of `rows`.

    Args:
        session: not open; of the context, if there is one.
        on_piece: see `Answers`.
        context: what all rows ask; their prompts begin with its ids.
        inputs: pixels and the like, for a single row.

    Returns:
        figures, once every row has ended.
    """
    model, size = session.model, len(rows)
    shared = 0 if context is None else len(context.ids)
    ids, mask = padded([row.prompt for row in rows], shared, tokenizer.pad_token_id or 0)
    sampler = RowSampler([row.sampling for row in rows], ids.shape[1], any(row.top_logprobs is not None for row in rows))
    found: list[tuple[Stats, list[float], int]] = []
    began = time.perf_counter()
    with opened(session) as (_, notes):

        def at_first() -> None:
            cache = session.cache
            assert cache is not None
            cache.settle()  # the prompt is over: what is read now has been packed, too
            found.append((session.stats, _kept(cache), cache.entry_bytes))

        answers = Answers(rows, tokenizer, ends_of_turn(model), sampler, on_piece, at_first)
        cache = None if context is None else context.fork()
        if cache is not None:
            if size > 1:
                cache.batch_repeat_interleave(size)
            session.cache = cache
        given = {"input_ids": ids, "attention_mask": mask, **(inputs or {})}
        # the budget of a context has been spent: the question is stored whole
        with nullcontext() if cache is None else session.hold():
            model.generate(  # type: ignore[operator]
                **on_device(model, given),
                past_key_values=cache,
                use_cache=True,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=max(row.room for row in rows),
                pad_token_id=tokenizer.pad_token_id or 0,
                logits_processor=LogitsProcessorList([sampler]),
                stopping_criteria=StoppingCriteriaList([answers]),
            )
    stats, kept, per_entry = found[0]
    alone = size == 1
    earlier = 0.0 if context is None else context.stats.compress_seconds
    return Figures(
        kept=kept,
        kv_bytes=[stats.kv_bytes] if alone else [round(n * per_entry) for n in kept],  # dense, without the padding
        kv_bytes_full=[stats.kv_bytes_full] if alone else [len(row.prompt) * per_entry for row in rows],
        asked=stats.asked,
        achieved=stats.achieved,
        prefill=answers.first - began,
        compress=max(0.0, stats.compress_seconds - earlier),
        decode=answers.last - answers.first,
        visual_kept=sum(stats.visual.values()) / len(stats.visual) if stats.visual else 0.0,
        notes=notes,
    )


def padded(prompts: Sequence[list[int]], shared: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as one batch, [B, n], and the mask, 0 at padding, which stands after the `shared` first ids of all prompts:
    between a context and its questions, or on the left."""
    width = max(map(len, prompts))
    ids = [p[:shared] + [pad] * (width - len(p)) + p[shared:] for p in prompts]
    mask = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _kept(cache: CompressedCache) -> list[float]:
    """Entries that each row stores, mean over layers and heads."""
    return torch.stack([layer.lengths.float().mean(1) for layer in cache.compressed()]).mean(0).tolist()  # type: ignore[no-any-return]
