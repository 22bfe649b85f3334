"""DiCoDe: a clip as the deep tokens of its two ends (arXiv 2412.04446)."""

from laconic.methods.codecs.dicode.method import DiCoDe as DiCoDe
