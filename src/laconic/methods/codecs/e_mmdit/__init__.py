"""E-MMDiT: a text-to-image diffusion transformer whose middle runs on fewer tokens (arXiv 2510.27135)."""

from laconic.methods.codecs.e_mmdit.method import EMMDiT as EMMDiT
