"""Oryx: one compressor for 1, 4 or 16 times fewer visual tokens (arXiv 2409.12961)."""

from laconic.methods.tokens.oryx.method import Oryx as Oryx
