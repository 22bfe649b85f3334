"""Attention of pseudo tokens that see parts of a prompt: exact, in a few calls of the plain kernel, without a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from laconic.ops.attend import attend, attend_padded, merge

Range = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """Some pseudo tokens of a sequence, and what they see besides those of the segment before themselves.

    Attributes:
        own: the first of them and the one after the last, numbered from the end of the prompt.
        prompt: ranges of the prompt that they see, in positions of the pass (padding counts).
        pseudo: ranges of earlier pseudo tokens.
    """

    own: Range
    prompt: tuple[Range, ...]
    pseudo: tuple[Range, ...] = ()

    @property
    def pairs(self) -> int:
        """Visible (query, key) pairs."""
        number = self.own[1] - self.own[0]
        seen = sum(stop - start for start, stop in (*self.prompt, *self.pseudo))
        return number * seen + number * (number + 1) // 2


Segments = Sequence[Sequence[Segment]]
"""By batch row; together the segments of a row have each of its pseudo tokens once, in order."""


def attend_segments(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    t: int,
    starts: Sequence[int],
    segments: Segments,
    softcap: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, H, t + P, D], k, v [B, Hkv, t + P, D] -> output [B, H, t + P, Dv], lse [B, H, t + P] (fp32).

    Args:
        t: tokens of the prompt, which see each other causally. `starts`: padding on the left of each row.
    """
    prompt = attend_padded(q[:, :, :t], k[:, :, :t], v[:, :, :t], scale, list(starts), softcap)
    out = torch.cat([prompt[0], q.new_zeros(*q.shape[:2], q.shape[2] - t, v.shape[-1])], 2)
    lse = torch.cat([prompt[1], prompt[1].new_full((*q.shape[:2], q.shape[2] - t), float("-inf"))], 2)
    for b, row in enumerate(segments):
        for segment in row:
            own = slice(b, b + 1), slice(None), slice(t + segment.own[0], t + segment.own[1])
            ranges = [*segment.prompt, *((t + start, t + stop) for start, stop in segment.pseudo)]
            seen = [attend(q[own], k[own], v[own], scale, causal=True, softcap=softcap)]
            if ranges:  # a row of nothing but padding has none
                past = [torch.cat([x[b : b + 1, :, start:stop] for start, stop in ranges], 2) for x in (k, v)]
                seen.append(attend(q[own], past[0], past[1], scale, softcap=softcap))
            out[own], lse[own] = merge(seen)
    return out, lse
