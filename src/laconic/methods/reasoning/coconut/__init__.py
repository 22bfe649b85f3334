"""Coconut: the last hidden state is the next input, in the place of a step in words (arXiv 2412.06769)."""

from laconic.methods.reasoning.coconut.method import Coconut as Coconut
