"""A request whose context is put into the prompt as a memory, and what that changes in the figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from laconic.engine.request import Request
from laconic.errors import ConflictError
from laconic.measure.cost import Shape
from laconic.measure.stats import Stats
from laconic.memory.contract import MemoryMethod
from laconic.memory.memory import Memory
from laconic.prompts.text import Prompt, PromptError
from laconic.specs import methods_of


def remembered(model: PreTrainedModel, tokenizer: Any, request: Request, prompt: Prompt) -> tuple[Memory | None, Request]:
    """The memory of the request's context, given or made by a method of it, and the request with its other methods.

    None where the request names no such method, and for the stock model, which reads the text.

    Args:
        prompt: of the request, with the context as it is.

    Raises:
        ConflictError: two methods that make memories, or one beside a memory that is made already.
        PromptError: no context, or one that the method does not read.
    """
    if request.methods is None:
        return None, request
    methods = methods_of(request.methods)  # texts, too
    makers = [method for method in methods if isinstance(method, MemoryMethod)]
    others = replace(request, methods=[m for m in methods if not isinstance(m, MemoryMethod)], memory=None)
    if request.memory is not None and makers:
        raise ConflictError(f"the memory was made by {request.memory.method.name} already; leave {makers[0].name} out.")
    if len(makers) > 1:
        raise ConflictError(f"{makers[0].name} and {makers[1].name} both make the memory; use one of them.")
    if request.memory is not None:
        return request.memory, replace(others, context=tokenizer.decode(list(request.memory.ids)))
    if not makers or makers[0].neutral:
        return None, others
    if request.saved is not None:
        raise PromptError(f"{makers[0].name} makes a memory of {makers[0].reads}; it does not go with a saved context.")
    if request.images or prompt.inputs:
        return Memory.of_images(model, tokenizer, prompt, len(request.images), makers[0]), others
    opening, context = prompt.context[: prompt.opening], prompt.context[prompt.opening :]
    return Memory.of(model, tokenizer, context, makers[0], opening), others


def charged(stats: Stats, memory: Memory | None, shape: Shape) -> Stats:
    """Figures of a prompt with a memory in it, as of the whole context: its tokens, what they cost uncompressed, and the
    time and FLOPs that making the memory took."""
    if memory is None or not stats.layers:
        return stats
    saved, mixed = memory.saved_tokens, stats.tokens_in
    whole, count = round(mixed) + saved, len(stats.layers)
    in_cache = stats.entries and sum(stats.entries) / count - stats.tokens_out
    asked = whole - len(memory.ids) + memory.keep * len(memory.ids)
    part = replace(shape, weights=tuple(shape.weights[i] for i in stats.layers))
    longer = part.prefill_flops([whole] * count) - part.prefill_flops([round(mixed)] * count)
    return replace(
        stats,
        tokens_in=mixed + saved,
        asked=stats.asked * asked / whole,
        achieved=float(in_cache or 0.0) / whole,
        kv_bytes_full=stats.kv_bytes_full + part.kv_bytes([saved] * count),
        prefill_seconds=stats.prefill_seconds + memory.seconds,
        compress_seconds=stats.compress_seconds + memory.seconds,
        prefill_flops=stats.prefill_flops + memory.flops,
        prefill_flops_full=stats.prefill_flops_full + longer,
    )
