"""Gist tokens: a prompt in the keys and values of a few tokens at its end (arXiv 2304.08467)."""

from laconic.methods.memory.gist.method import Gist as Gist
