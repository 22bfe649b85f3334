"""Pseudo tokens: they run after the prompt so that their queries can be looked at, and leave no trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from laconic.cache.hooks import PseudoTokens, ReadsWithTokenizer
from laconic.seams import Host, Order, Seam
from laconic.step import Step


class PseudoSeam(Seam):
    """Appends the pseudo tokens of the method that has them to each prefill pass, and removes their rows from its output.

    It enters after the stream seam, because the method is to see the prompt that runs, and leaves before it. A session
    always opens it: any cache method may have the hook (`PseudoTokens`).
    """

    order = Order.PSEUDO

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        super().__init__(host, methods)
        self.method = next((method for method in host.methods if isinstance(method, PseudoTokens)), None)

    def prepare(self) -> None:
        if isinstance(self.method, ReadsWithTokenizer) and self.host.tokenizer is not None:
            self.method.read_with(self.host.tokenizer)

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        method = self.method
        if method is None or not step.prefill or step.hold or method.neutral:
            return kwargs
        return extended(kwargs, method, step)

    def leave(self, output: Any, step: Step) -> Any:
        return trimmed(output, step.length) if step.pseudo else output


def extended(kwargs: dict[str, Any], method: PseudoTokens, step: Step) -> dict[str, Any]:
    """The decoder's arguments with the method's pseudo tokens after the prompt of every row; sets `step.pseudo`.

    Rows are padded on the left only, so the tokens come right after each row's own last token, at the positions that follow.
    They are real in the mask, and no token before them sees them: attention is causal.

    Raises:
        ValueError: the method returned anything but one row of tokens for each row of the prompt.
    """
    kwargs = dict(kwargs)
    name = "inputs_embeds" if kwargs.get("input_ids") is None else "input_ids"
    prompt = kwargs[name]
    added = method.pseudo(prompt, step.valid)
    if added.ndim != prompt.ndim or added.shape[0] != prompt.shape[0] or added.shape[2:] != prompt.shape[2:]:
        raise ValueError(
            f"{getattr(method, 'name', type(method).__name__)}: pseudo() returned {tuple(added.shape)} for {name} of "
            f"{tuple(prompt.shape)}; it must be {(prompt.shape[0], 'P', *prompt.shape[2:])}."
        )
    step.pseudo = number = added.shape[1]
    kwargs[name] = torch.cat([prompt, added.to(prompt.dtype)], 1)
    following = torch.arange(1, number + 1, device=prompt.device) + method.pseudo_offset()
    last = step.position_ids[..., -1:]
    kwargs["position_ids"] = torch.cat([step.position_ids, (last + following).clamp(min=0)], -1)
    mask = kwargs.get("attention_mask")
    if mask is not None:
        kwargs["attention_mask"] = torch.cat([mask, mask.new_ones(mask.shape[0], number)], 1)
    kwargs.pop("cache_position", None)  # it counts the prompt alone; without it, transformers counts again
    return kwargs


def trimmed(output: Any, length: int) -> Any:
    """The decoder's output without the rows of the pseudo tokens: hidden states [B, length, hidden]."""
    output.last_hidden_state = output.last_hidden_state[:, :length]
    if output.hidden_states is not None:
        output.hidden_states = tuple(states[:, :length] for states in output.hidden_states)
    return output
