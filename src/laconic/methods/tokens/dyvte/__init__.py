"""DyVTE: a small network on the text tells, per sample, when all visual tokens may leave the decoder (arXiv 2411.19628)."""

from laconic.methods.tokens.dyvte.method import DyVTE as DyVTE
