"""LoCoCo: drop-in convolutions fold what is old into a memory of fixed size (arXiv 2406.05317)."""

from laconic.methods.cache.lococo.method import LoCoCo as LoCoCo
