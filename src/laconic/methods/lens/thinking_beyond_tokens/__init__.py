"""Thinking Beyond Tokens: a review that names compression as a measure of learning; hooks for it (arXiv 2507.00951)."""

from laconic.methods.lens.thinking_beyond_tokens.method import ThinkingBeyondTokens as ThinkingBeyondTokens
