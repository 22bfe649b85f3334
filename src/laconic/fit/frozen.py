"""A model that does not learn while something beside it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def frozen(model: PreTrainedModel, attention: str | None = None) -> Iterator[None]:
    """No parameter of `model` learns inside the block, and it attends by `attention` if that is given; afterwards all is as
    it was."""
    before, learning = model.config._attn_implementation, [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.requires_grad_(False)
        if attention:
            model.set_attn_implementation(attention)
        yield
    finally:
        if attention:
            model.set_attn_implementation(before)
        for parameter, state in learning:
            parameter.requires_grad_(state)
