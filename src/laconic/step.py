"""One forward pass of the model, as the seams see it: which tokens run, at which positions, which are real."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from laconic.errors import SessionError

if TYPE_CHECKING:
    from laconic.ops.segments import Segments


def gather(x: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Rows `index` [B, m] of `x` along `dim`; dim 0 of `x` is the batch, or 1 and then broadcast."""
    dim = dim % x.ndim
    if x.shape[0] == 1 and index.shape[0] > 1:
        x = x.expand(index.shape[0], *x.shape[1:])
    view = [1] * x.ndim
    view[0], view[dim] = index.shape
    target = list(x.shape)
    target[dim] = index.shape[1]
    return x.gather(dim, index.view(view).expand(target))


@dataclass
class Step:
    """The stream of one forward pass. A stream method shortens it on its way through the layers.

    Attributes:
        start: tokens that the cache had seen before.
        length: tokens fed to the model in this pass.
        position_ids: RoPE positions of the stream's tokens, [B or 1, n]; [3 or 4, B, n] where a token has several.
        index: token index of every position of the stream, [B, n]; None while it is ``start .. start + length``.
        valid: False at padding, [B, n]; None when all tokens are real.
        real: real tokens seen by each sequence including this pass, one int per batch row.
        kept: positions of the pass that are still in the stream, [B, n]; None while all are.
        hold: keep every new entry, whatever the methods say.
        pseudo: tokens that run after the `length` real ones in this pass and are not stored.
        segments: what the pseudo tokens of each batch row see; None where they see the whole prompt, causally.
        generated: how many of the `length` tokens, the last ones, were generated rather than given as a prompt. A lone token
            was, unless it is the first of all or a prompt is known to come one token at a time.
        shown: rows of the stream that show image patches, [B, n]; None in a pass without images.
        moved: whether the layers now run at other positions than those that the decoder was given, or rows of them.
        shared: what was computed once for several layers; it goes when the pass is over.
    """

    start: int
    length: int
    position_ids: torch.Tensor
    real: list[int]
    valid: torch.Tensor | None = None
    index: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    hold: bool = False
    pseudo: int = 0
    segments: Segments | None = None
    generated: int | None = None
    shown: torch.Tensor | None = None
    moved: bool = False
    shared: dict[str, Any] = field(default_factory=dict, repr=False)
    _tokens: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.generated is None:
            self.generated = int(self.length == 1 and self.start > 0)

    @property
    def prefill(self) -> bool:
        """A pass over prompt, or a piece of it: methods may compress after it."""
        assert self.generated is not None
        return self.generated < self.length

    @property
    def rows(self) -> int:
        """Rows of the stream, pseudo tokens aside."""
        return self.position_ids.shape[-1]

    @property
    def prompt(self) -> Step:
        """The same pass without the generated tokens after its prompt."""
        assert self.generated is not None
        return self.but_last(self.generated) if self.generated else self

    def but_last(self, n: int) -> Step:
        """The pass as it would have been without its last `n` tokens."""
        if n == 0:
            return self
        gone = [n] * len(self.real) if self.valid is None else self.valid[:, -n:].sum(-1).tolist()
        real = [count - lost for count, lost in zip(self.real, gone, strict=True)]
        generated = max(0, (self.generated or 0) - n)
        return self._rows(slice(None, -n), length=self.length - n, real=real, generated=generated)

    def last(self, n: int) -> Step:
        """The pass that its last `n` tokens would make alone, after the others."""
        generated = min(n, self.generated or 0)
        return self._rows(slice(-n, None), start=self.start + self.length - n, length=n, generated=generated)

    def _rows(self, rows: slice, **numbers: Any) -> Step:
        several = {name: getattr(self, name) for name in ("valid", "index", "kept", "shown")}
        of: dict[str, Any] = {name: None if x is None else x[:, rows] for name, x in several.items()}
        return replace(self, position_ids=self.position_ids[..., rows], shared={}, _tokens=None, **of, **numbers)

    def pairs(self, batch: int, tokens: int) -> int:
        """Visible (query, key) pairs among `tokens` tokens of the pass, pseudo tokens among them, over the batch."""
        if self.segments is None:
            return batch * tokens * (tokens + 1) // 2
        prompt = tokens - self.pseudo
        return batch * prompt * (prompt + 1) // 2 + sum(segment.pairs for row in self.segments for segment in row)

    def token_index(self, batch: int) -> torch.Tensor:
        """Token index of the stream's positions, int32 [B, n]."""
        if self.index is not None:
            return self.index
        if self._tokens is None:  # every layer asks
            device = self.position_ids.device
            self._tokens = torch.arange(self.start, self.start + self.length, dtype=torch.int32, device=device)
        return self._tokens.expand(batch, -1)

    def places(self, rows: torch.Tensor) -> torch.Tensor:
        """Places in this pass, from 0, of the tokens in the stream's rows `rows` [B, m]; -1, an empty slot, stays -1."""
        places = self.token_index(len(rows)).long() - self.start
        return torch.where(rows < 0, -1, places.gather(1, rows.clamp(min=0)))

    def reduce(self, keep: torch.Tensor, *, inside: bool = False) -> None:
        """Shorten the stream to its rows `keep` [B, m] for all later layers; -1, on the left, is an empty slot.

        Args:
            inside: between layers. The arguments that the decoder passes to every layer still have a row for every token
                then, and `kept` says which of those are left; before layer 0 the arguments themselves are shortened.
        """
        none, keep = keep < 0, keep.clamp(min=0)
        if inside:
            self.kept = keep if self.kept is None else self.kept.gather(1, keep)
        self.index = self.token_index(keep.shape[0]).gather(1, keep)
        several = self.position_ids.ndim == 3
        rows = [gather(row, keep, -1) for row in (self.position_ids if several else [self.position_ids])]
        self.position_ids = torch.stack(rows) if several else rows[0]
        if self.valid is not None or bool(none.any()):
            self.valid = ~none if self.valid is None else self.valid.gather(1, keep) & ~none
        if self.shown is not None:
            self.shown = self.shown.gather(1, keep) & ~none

    def restart(self, position_ids: torch.Tensor, valid: torch.Tensor | None, shown: torch.Tensor | None) -> None:
        """All tokens of the pass go on again from here: what `reduce` removed before has been put back, at these
        positions."""
        self.index = self.kept = None
        self.position_ids, self.valid, self.shown = position_ids, valid, shown


def step_of(
    kwargs: dict[str, Any], x: torch.Tensor, start: int, before: list[int], hold: bool, generated: int | None = None
) -> Step:
    """The step that a call of the decoder with these arguments makes.

    Args:
        x: what it reads, ids [B, T] or embeddings [B, T, D].
        start: tokens that the cache has seen; `before`: real ones among them, by batch row ([] when it is new).
        generated: how many of the T tokens, the last ones, are no prompt; see `Step`.

    Raises:
        SessionError: a mask that does not fit or hides what is in the cache, padding on the right, or another batch size
            than the cache holds.
    """
    batch, length, device = x.shape[0], x.shape[1], x.device
    positions = kwargs.get("position_ids")
    if positions is None:
        positions = torch.arange(start, start + length, device=device)[None]
    mask = kwargs.get("attention_mask")
    if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 2):
        raise SessionError("laconic builds attention masks itself; pass a 2-D attention_mask [batch, tokens] or none.")
    if mask is not None and mask.shape[1] < length:
        raise SessionError(f"attention_mask covers {mask.shape[1]} tokens, but the call brings {length}.")
    valid = None
    if mask is not None:
        fresh = mask[:, -length:].to(device=device, dtype=torch.bool)
        valid = None if bool(fresh.all()) else fresh
        if valid is not None and bool((valid[:, :-1] & ~valid[:, 1:]).any()):
            raise SessionError("the batch is padded on the right; set tokenizer.padding_side = 'left'.")
    before = before or [0] * batch
    if len(before) != batch:
        raise SessionError(f"this call is a batch of {batch}, but the cache holds {len(before)}; reorder or start again.")
    if start and mask is not None and mask.shape[1] == start + length:
        hidden = [max(0, had - seen) for had, seen in zip(before, mask[:, :start].sum(-1).tolist(), strict=True)]
        if any(hidden):
            raise SessionError(
                f"attention_mask hides {max(hidden)} tokens that are in the cache already. What methods chose and merged "
                "cannot be undone for them; hide tokens when they are read, or start again without past_key_values."
            )
    added = [length] * batch if valid is None else valid.sum(-1).tolist()
    real = [a + b for a, b in zip(before, added, strict=True)]
    return Step(start, length, positions, real, valid=valid, hold=hold, generated=generated)
