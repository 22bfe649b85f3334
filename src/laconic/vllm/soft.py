"""Soft tokens of a memory as a prompt of vLLM (`--enable-prompt-embeds`)."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import ConflictError, UnsupportedModelError
from laconic.families import family_of
from laconic.memory.memory import Memory


def soft_prompt(memory: Memory, model: PreTrainedModel, tokenizer: Any, question: str, **parts: Any) -> Tensor:
    """Embeddings [n, d] of a question with a memory in its context's place, in the model's precision, on the CPU.

    Args:
        memory: soft tokens; a prefix is entries of the cache, see `hand_over`.
        parts: of the prompt: ``answer_prefix=``, ``system=``; see `laconic.prompts.text.build`.

    Returns:
        what `LLM.generate` takes as ``{"prompt_embeds": ...}``; `encoded` for a request over HTTP. Prefix caching has to be
        off (``enable_prefix_caching=False``), since vLLM tells prompts apart by their ids and these have none.

    Raises:
        ConflictError: the memory is a prefix.
        UnsupportedModelError: tokens of this model have several positions each (M-RoPE), which vLLM counts otherwise.
    """
    if memory.prefix is not None:
        raise ConflictError(
            f"{memory.method.name} makes keys and values, which are no embeddings; serve it as a context: "
            "laconic.vllm.hand_over(laconic.read(model, tokenizer, memory), store)."
        )
    check_one_position(model)
    embeddings: Tensor = memory.inputs(model, tokenizer, question, **parts)["inputs_embeds"]
    return embeddings[0].detach().cpu()


def encoded(embeddings: Tensor) -> str:
    """Embeddings [n, d] as text: the field `prompt_embeds` of a request to ``/v1/completions``."""
    if embeddings.ndim != 2 or not embeddings.is_floating_point() or not len(embeddings):
        raise ValueError(
            f"embeddings of shape {list(embeddings.shape)} and type {embeddings.dtype}: give floating-point numbers [n, d], "
            "one row for every token of one prompt."
        )
    buffer = io.BytesIO()
    torch.save(embeddings.detach().cpu().contiguous(), buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def check_one_position(model: PreTrainedModel) -> None:
    """Refuse models whose tokens have several positions each.

    Raises:
        UnsupportedModelError: M-RoPE.
    """
    stack: Any = family_of(model).stack(model)
    if "mrope_section" in (getattr(stack.config, "rope_parameters", None) or {}):
        raise UnsupportedModelError(
            f"tokens of {stack.config.model_type} have several positions each (M-RoPE), and vLLM gives embeddings those of "
            "text; serve this model with `laconic serve`."
        )
