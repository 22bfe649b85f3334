"""Selftok: image tokens in the order in which a diffusion decoder consumes them (arXiv 2505.07538)."""

from laconic.methods.codecs.selftok.method import SelfTok as SelfTok
