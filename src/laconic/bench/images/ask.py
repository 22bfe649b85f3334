"""How a batch of images and questions is put to a model: on the users' path, `model.generate` in a session."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.bench.ask import Answer, Clock, Outcome, Plain
from laconic.measure.stats import Stats
from laconic.method import Method
from laconic.session import Session, compress

SHARED = ("kv_bytes", "kv_bytes_full", "kv_bytes_allocated", "prefill_flops", "prefill_flops_full", "decode_flops")
CLOCKS = ("encoder_seconds", "prefill_seconds", "decode_seconds", "compress_seconds")


def answer(model: PreTrainedModel, processor: Any, inputs: Any, method: Method | None, new_tokens: int) -> list[Outcome]:
    """Answer a batch whose prompts are equally long; ``method=None`` is the uncompressed model.

    Returns:
        an outcome for each sample. All have the same figures: means over the batch. Times are the batch's, divided by its
        size.
    """
    inputs = inputs.to(model.device, model.dtype)
    size, length = inputs["input_ids"].shape
    with torch.inference_mode(), Plain(model) if method is None else compress(model, method) as session:
        at_first: list[Stats] = []
        clock = Clock(lambda: at_first.append(_each(session, size)))
        began = time.perf_counter()
        out = model.generate(  # type: ignore[operator]
            **inputs,
            past_key_values=session.cache if isinstance(session, Plain) else None,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=processor.tokenizer.pad_token_id,
            streamer=clock,
        )
        final = _each(session, size)
    first, decode = (clock.first - began) / size, (clock.last - clock.first) / size
    outcomes = []
    for row in out[:, length:].tolist():
        ids = _until_end(row, model)
        text = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
        outcomes.append(Outcome([Answer(text, ids, first, decode)], at_first[0], at_first[0], final))
    return outcomes


def _each(session: Session | Plain, size: int) -> Stats:
    """Figures of one sequence of a batch; those of the uncompressed model are of one already."""
    stats = session.stats
    if isinstance(session, Plain):
        return stats
    bytes_and_flops = {name: round(getattr(stats, name) / size) for name in SHARED}
    return replace(stats, **bytes_and_flops, **{name: getattr(stats, name) / size for name in CLOCKS})


def _until_end(ids: list[int], model: PreTrainedModel) -> list[int]:
    """`ids` up to the end of the turn; what follows is padding, while others of the batch go on."""
    ends = model.generation_config.eos_token_id  # type: ignore[union-attr]
    found = {ends} if isinstance(ends, int) else set(ends or ())
    stop = next((i + 1 for i, token in enumerate(ids) if token in found), len(ids))
    return ids[:stop]
