"""Cartridges: keys and values trained for one document by self-study (arXiv 2506.06266)."""

from laconic.methods.memory.cartridge.method import Cartridge as Cartridge
