"""What reads a prompt for a model: its tokenizer, or a processor that has one."""

from __future__ import annotations

from typing import Any

from transformers import ProcessorMixin


def tokenizer_of(reader: Any) -> Any:
    """The tokenizer itself, or that of a processor: of what `load` returns with the model."""
    return reader.tokenizer if isinstance(reader, ProcessorMixin) else reader  # type: ignore[attr-defined]
