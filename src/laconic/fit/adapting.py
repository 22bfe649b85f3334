"""A few steps of next-token loss on one context before it is asked about, undone afterwards.

A hook of the toolkit that reviews name as test-time adaptation; nothing is claimed for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from laconic.fit.frozen import frozen


@contextmanager
def adapted(model: Any, ids: Tensor, steps: int = 4, lr: float = 1e-3, names: str = "norm") -> Iterator[list[float]]:
    """While open, `model` has been trained on a context; afterwards it holds what it held before, the very same storage.

    Args:
        ids: the context, [T] or [B, T]. `steps`: of AdamW, each over all of it; 0 changes nothing.
        names: parameters whose names contain this are trained.

    Yields:
        the loss before each step.

    Raises:
        ValueError: no parameter of that name, half precision (in which small steps are lost), fewer than two tokens, or a
            negative number of steps.
    """
    rows = ids[None] if ids.ndim == 1 else ids
    own = {name: p for name, p in model.named_parameters() if names in name}
    if not own or steps < 0 or rows.shape[1] < 2:
        raise ValueError(
            f"names={names!r} has {len(own)} parameters, steps={steps}, and the context {rows.shape[1]} tokens: choose "
            "names such as 'norm' or 'mlp', no fewer than 0 steps, and two tokens at least."
        )
    if any(p.dtype != torch.float32 for p in own.values()):
        raise ValueError("small steps are lost in half precision; load the model with dtype=torch.float32.")
    before = {name: p.data for name, p in own.items()}
    try:
        with frozen(model), torch.enable_grad():
            losses = _trained(model, own, rows.to(model.device), steps, lr)
        yield losses
    finally:
        for name, p in own.items():
            p.data, p.grad = before[name], None


def _trained(model: Any, own: dict[str, Any], rows: Tensor, steps: int, lr: float) -> list[float]:
    """Train clones of the parameters, which take their places; the losses before each step."""
    for p in own.values():
        p.data = p.data.clone()
        p.requires_grad_(True)
    optimizer, losses = torch.optim.AdamW(list(own.values()), lr=lr, weight_decay=0.0), []
    for _ in range(steps):
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses
