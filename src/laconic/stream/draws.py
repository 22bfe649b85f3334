"""Seeded draws that depend only on the number of tokens, so a batch draws what each of its sequences would by itself."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(tokens: int, seed: int) -> Tensor:
    """One random number per token in [0, 1), [tokens]; the best of them are a uniform subset."""
    return torch.rand(tokens, generator=torch.Generator().manual_seed(seed))
