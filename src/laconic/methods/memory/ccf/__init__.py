"""CCF: states of memory tokens at every layer's input, which the model reads as keys and values (arXiv 2509.09199)."""

from laconic.methods.memory.ccf.method import CCF as CCF
