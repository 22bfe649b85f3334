"""LLaVolta: visual tokens are averaged in groups before one decoder layer, above all while training (arXiv 2406.20092)."""

from laconic.methods.tokens.llavolta.method import LLaVolta as LLaVolta
