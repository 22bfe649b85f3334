"""CrossLMM: a few pooled tokens an image in the decoder, some layers of which look at all of them (arXiv 2505.17020)."""

from laconic.methods.tokens.crosslmm.method import CrossLMM as CrossLMM
