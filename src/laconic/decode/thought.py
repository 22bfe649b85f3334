"""The thinking of a batch while it is generated: what each row has said, whether it is over, and what must come next."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.errors import SessionError

FREE = -1
"""Stands for a token that the model chooses itself."""


class Thought:
    """What the rows of a batch have generated since their prompt.

    Args:
        rows: of the batch. `opening`: tokens that every row begins with. `mark`: ends the thinking.
        ends: tokens that end an answer; a row that comes to one without the mark has stopped thinking, too.

    Attributes:
        tokens: generated so far, [B, n].
        closed: whether the mark has come, [B].
        thinking: steps of thinking so far, without the opening and the mark, [B].
        latent: how many of them were without words, [B].
        wordless: rows whose next input is a vector, [B]; `vectors`: these [B, d].
    """

    def __init__(self, rows: int, opening: Sequence[int], mark: Sequence[int], ends: Sequence[int], device: torch.device):
        self.opening, self.mark, self.ends = tuple(opening), tuple(mark), tuple(ends)
        self.tokens = torch.zeros(rows, 0, dtype=torch.long, device=device)
        self.closed = torch.zeros(rows, dtype=torch.bool, device=device)
        self.thinking = torch.zeros(rows, dtype=torch.long, device=device)
        self.latent = torch.zeros_like(self.thinking)
        self.wordless = torch.zeros_like(self.closed)
        self.vectors: Tensor | None = None
        self._writing = torch.zeros_like(self.thinking)  # tokens of the mark that have been forced
        self._forced = torch.full_like(self.thinking, FREE)

    @property
    def opened(self) -> bool:
        """Whether all of the opening has come."""
        return self.tokens.shape[1] >= len(self.opening)

    @property
    def thinks(self) -> Tensor:
        """Rows that are thinking, and may go on to, [B]."""
        return ~self.closed & (self._writing == 0)

    def take(self, tokens: Tensor) -> None:
        """The tokens [B] that came out of the last pass.

        Raises:
            SessionError: another one than the session forced.
        """
        wrong = (self._forced != FREE) & (tokens != self._forced) & ~self.closed
        if bool(wrong.any()):
            raise SessionError(
                "a token was replaced that the thinking needs: decode greedily or by sampling, without beams and without "
                "processors that forbid tokens."
            )
        opened = self.opened
        self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
        if not opened:
            return
        mark = torch.tensor(self.mark, device=tokens.device)
        came = torch.zeros_like(self.closed)
        if self.tokens.shape[1] - len(self.opening) >= len(mark):
            came = (self.tokens[:, -len(mark) :] == mark).all(-1)
        over = came | torch.isin(tokens, torch.tensor(self.ends, device=tokens.device, dtype=torch.long))
        self.thinking += (~self.closed & ~over & (self._writing == 0)).long()
        self.latent += (~self.closed & self.wordless).long()
        self.closed |= over
        self._writing[self.closed] = 0

    def end(self, rows: Tensor) -> None:
        """The thinking of `rows` [B] ends now: the mark comes next."""
        self._writing[rows & self.thinks] = 1

    def next(self, wordless: Tensor, placeholder: int) -> Tensor:
        """What comes next, [B]: a forced token, or `FREE`.

        Args:
            wordless: rows that take a step without words, [B]; `placeholder` stands for it.
        """
        rows = len(self.closed)
        forced = torch.full((rows,), FREE, device=self.closed.device)
        self.wordless = torch.zeros_like(self.closed)
        if not self.opened:
            forced[:] = self.opening[self.tokens.shape[1]]
        else:
            self.wordless = wordless & self.thinks
            forced[self.wordless] = placeholder
            for row in torch.nonzero(self._writing).flatten().tolist():
                forced[row] = self.mark[int(self._writing[row]) - 1]
                self._writing[row] = min(int(self._writing[row]) + 1, len(self.mark))
        self._forced = forced
        return forced
