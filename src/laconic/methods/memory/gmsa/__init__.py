"""GMSA: means of groups of encoder states, aligned with the embedding space by one decoder block (arXiv 2505.12215)."""

from laconic.methods.memory.gmsa.method import GMSA as GMSA
