"""C3: a small model's latent tokens are read by a larger one (arXiv 2511.15244)."""

from laconic.methods.memory.c3.method import C3 as C3
