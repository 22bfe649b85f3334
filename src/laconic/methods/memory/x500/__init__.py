"""500xCompressor: the keys and values of memory tokens after a segment are its memory (arXiv 2408.03094)."""

from laconic.methods.memory.x500.method import X500 as X500
