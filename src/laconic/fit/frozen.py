"""A model that stays frozen while something beside it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def frozen(model: PreTrainedModel, attention: str | None = None) -> Iterator[None]:
    """No parameter of `model` is trained inside the block, and it uses the attention implementation `attention` if one is
    given; afterwards everything is as it was."""
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
