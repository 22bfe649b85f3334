"""Tempo: a small model notes down what answers the question, segment by segment (arXiv 2604.08120)."""

from laconic.methods.tokens.tempo.method import Tempo as Tempo
