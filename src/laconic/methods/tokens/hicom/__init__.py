"""HICom: blocks of patches pooled by what the question asks, and a few tokens of the whole (arXiv 2503.16036)."""

from laconic.methods.tokens.hicom.method import HICom as HICom
