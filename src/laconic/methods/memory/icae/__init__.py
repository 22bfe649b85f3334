"""ICAE: memory tokens appended to a segment become its memory (arXiv 2307.06945)."""

from laconic.methods.memory.icae.method import ICAE as ICAE
