"""ComprExIT: slots filled from all frozen layers by an optimal-transport plan (arXiv 2602.03784)."""

from laconic.methods.memory.comprexit.method import ComprExIT as ComprExIT
