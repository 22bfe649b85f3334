"""Pseudo tokens: they run after the prompt so that their queries can be looked at, and leave no trace."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from laconic.cache.hooks import PseudoTokens, ReadsWithTokenizer, SeesSegments
from laconic.errors import ConflictError
from laconic.families.rotary import phases
from laconic.seams import Host, Order, Seam
from laconic.step import Step
from laconic.stream.contract import TokenMethod


class _Pass(threading.local):
    """What the seam knows about the pass that runs in this thread.

    Attributes:
        real: rows that are not pseudo tokens; 0 in a pass without any. `positions`: of the pseudo tokens.
    """

    real = 0
    positions: Tensor | None = None


class PseudoSeam(Seam):
    """Appends the pseudo tokens of the method that has them to each prefill pass, and removes their rows from its output.

    It enters after the stream seam, because the method is to see the prompt that runs, and leaves before it. A session
    always opens it: any cache method may have the hook (`PseudoTokens`).
    """

    order = Order.PSEUDO

    def __init__(self, host: Host, methods: tuple[Any, ...]):
        super().__init__(host, methods)
        self.method = next((method for method in host.methods if isinstance(method, PseudoTokens)), None)
        self._pass = _Pass()

    def prepare(self) -> None:
        """Refuse methods that would cut between layers: pseudo tokens have no row in what such a cut chooses from."""
        depth, method = self.host.depth, self.method
        active = [m for m in self.host.methods if isinstance(m, TokenMethod) and not m.neutral]
        cutting = [m.name for m in active if any(m.cuts(depth))]
        if method is not None and cutting:
            raise ConflictError(
                f"{getattr(method, 'name', type(method).__name__)} runs pseudo tokens after the prompt, and {cutting[0]} "
                "shortens the stream between layers; use a method on visual tokens that cuts before layer 0, or another one "
                "on the cache."
            )
        if isinstance(self.method, ReadsWithTokenizer) and self.host.tokenizer is not None:
            self.method.read_with(self.host.tokenizer)

    def install(self, restore: ExitStack) -> None:
        """The rotary module is to see the prompt's positions alone, because where its frequencies depend on how far they
        reach ("dynamic" and "longrope" scaling), pseudo tokens would change those of the prompt, and of all that follows."""
        if self.method is not None:
            rotary: Any = self.host.stack.rotary_emb
            restore.callback(rotary.register_forward_pre_hook(self._before_rotary, with_kwargs=True).remove)
            restore.callback(rotary.register_forward_hook(self._after_rotary, with_kwargs=True).remove)

    def enter(self, kwargs: dict[str, Any], step: Step, ids: Tensor | None) -> dict[str, Any]:
        method, self._pass.real, self._pass.positions = self.method, 0, None
        if method is None or not step.prefill or step.hold or method.neutral:
            return kwargs
        kwargs = extended(kwargs, method, step)
        self._pass.real = step.position_ids.shape[-1]
        return kwargs

    def leave(self, output: Any, step: Step) -> Any:
        real, self._pass.real = self._pass.real, 0
        return trimmed(output, real) if real else output

    def _before_rotary(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take the positions of the pseudo tokens away."""
        if not self._pass.real:
            return None
        given = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        self._pass.positions, real = given[..., self._pass.real :], given[..., : self._pass.real]
        if "position_ids" in kwargs:
            return args, kwargs | {"position_ids": real}
        return (args[0], real, *args[2:]), kwargs

    def _after_rotary(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Append their phases, by the frequencies that the prompt was given."""
        positions, self._pass.positions = self._pass.positions, None
        if positions is None:
            return output
        x, kind = args[0], kwargs.get("layer_type", args[2] if len(args) > 2 else None)
        added: Any = phases(module, x, positions, kind)
        if isinstance(output, Tensor):
            return torch.cat([output, added], -2)
        return tuple(torch.cat(pair, -2) for pair in zip(output, added, strict=True))


def extended(kwargs: dict[str, Any], method: PseudoTokens, step: Step) -> dict[str, Any]:
    """The decoder's arguments with the method's pseudo tokens after the prompt of every row; sets `step.pseudo` and
    `step.segments`.

    Rows are padded on the left only, so the tokens come right after each row's own last token, at the positions that follow.
    They are real in the mask, and no token before them sees them: attention is causal. Drafts may lie between the prompt and
    them; they are at the positions that follow the prompt all the same, and do not see the drafts.

    Raises:
        ValueError: the method returned anything but one row of tokens for each row of the prompt.
    """
    kwargs = dict(kwargs)
    name = "inputs_embeds" if kwargs.get("input_ids") is None else "input_ids"
    rows, prompt_alone = kwargs[name], step.prompt
    prompt = rows[:, : prompt_alone.rows]
    added = method.pseudo(prompt, prompt_alone.valid)
    if added.ndim != prompt.ndim or added.shape[0] != prompt.shape[0] or added.shape[2:] != prompt.shape[2:]:
        raise ValueError(
            f"{getattr(method, 'name', type(method).__name__)}: pseudo() returned {tuple(added.shape)} for {name} of "
            f"{tuple(prompt.shape)}; it must be {(prompt.shape[0], 'P', *prompt.shape[2:])}."
        )
    step.pseudo = number = added.shape[1]
    step.segments = method.segments(prompt, prompt_alone.valid) if isinstance(method, SeesSegments) else None
    kwargs[name] = torch.cat([rows, added.to(rows.dtype)], 1)
    following = torch.arange(1, number + 1, device=prompt.device) + method.pseudo_offset()
    last = prompt_alone.position_ids[..., -1:]
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
