"""Thinking Beyond Tokens: a review that names compression as a measure of learning; a hook for it (arXiv 2507.00951)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from laconic import checks
from laconic.lens import LensMethod
from laconic.method import register
from laconic.methods.lens.thinking_beyond_tokens.description import counted_bits, deflated_bits, predicted_bits


@register(
    "thinking_beyond_tokens",
    site="lens",
    mechanism="description length",
    source="arXiv 2507.00951",
    query_aware=False,
    inferred="everything: the review has no algorithm; this is a hook of the toolkit, not a reproduction",
)
@dataclass(kw_only=True)
class ThinkingBeyondTokens(LensMethod):
    """Bits per byte that a text takes under a model, beside its own counts of bytes and deflate (prequential code).

    The size of the model is not charged. Bits are given per byte of text, because tokens differ from model to model.

    Args:
        window: tokens that the model reads at once.
        before: of them, those that a window repeats of the one before it.

    Raises:
        ValueError: no text, or `before` that is not below `window`.
    """

    window: int = 512
    before: int = 256

    needs_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole(self, "before", 1)
        checks.whole(self, "window", self.before + 1)

    def look(self, model: Any, tokenizer: Any, text: str | None) -> dict[str, Any]:
        if not text:
            raise ValueError(f"{self.name}: give a --context with the text to be described.")
        ids = tokenizer.encode(text, add_special_tokens=False)
        begin = tokenizer.bos_token_id
        if begin is None:  # nothing predicts the first token; it is left out of the bits and stays in the bytes
            begin = ids.pop(0)
        written = text.encode()
        bits = {
            "model": predicted_bits(model, [begin, *ids], self.window, self.before),
            "order zero": counted_bits(written),
            "deflate": float(deflated_bits(written)),
        }
        return {
            "bits per byte": {name: found / len(written) for name, found in bits.items()},
            "bytes": len(written),
            "tokens": len(ids),
            "bits per token": bits["model"] / max(1, len(ids)),
        }
