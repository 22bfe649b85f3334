"""Pseudo tokens: they run behind the prompt so that their queries can be looked at, and leave no trace (DapQ)."""

from __future__ import annotations

from typing import Any

import torch

from laconic.cache.contract import CacheMethod
from laconic.step import Step


def extended(kwargs: dict[str, Any], method: CacheMethod, step: Step) -> dict[str, Any]:
    """The stack's arguments with the method's pseudo tokens behind the prompt of every row; `step` learns their number.

    Rows are padded on the left only, so the tokens stand right behind each row's own end, at the positions that follow. They
    count as real in the mask, and nobody before them sees them: attention is causal.

    Raises:
        ValueError: the method gave something that is no row of tokens for each row of the prompt.
    """
    kwargs = dict(kwargs)
    name = "inputs_embeds" if kwargs.get("input_ids") is None else "input_ids"
    prompt = kwargs[name]
    added = method.pseudo(prompt, step.valid)
    if added.ndim != prompt.ndim or added.shape[0] != prompt.shape[0] or added.shape[2:] != prompt.shape[2:]:
        raise ValueError(
            f"{method.name}: pseudo() returned {tuple(added.shape)} for {name} of {tuple(prompt.shape)}; it must be "
            f"{(prompt.shape[0], 'P', *prompt.shape[2:])}."
        )
    step.pseudo = number = added.shape[1]
    kwargs[name] = torch.cat([prompt, added.to(prompt.dtype)], 1)
    behind = torch.arange(1, number + 1, device=prompt.device) + method.pseudo_offset()
    last = step.position_ids[..., -1:]
    kwargs["position_ids"] = torch.cat([step.position_ids, (last + behind).clamp(min=0)], -1)
    mask = kwargs.get("attention_mask")
    if mask is not None:
        kwargs["attention_mask"] = torch.cat([mask, mask.new_ones(mask.shape[0], number)], 1)
    kwargs.pop("cache_position", None)
    return kwargs


def trimmed(output: Any, length: int) -> Any:
    """The stack's output without the rows of the pseudo tokens: hidden states [B, length, hidden]."""
    output.last_hidden_state = output.last_hidden_state[:, :length]
    if output.hidden_states is not None:
        output.hidden_states = tuple(states[:, :length] for states in output.hidden_states)
    return output
