"""EAS: attention sub-layers that a task does not need, with adapters in their place (arXiv 2403.15226)."""

from laconic.methods.weights.eas.network import Adapter, Adapters, applied, folded
from laconic.methods.weights.eas.search import Search, search

__all__ = ["Adapter", "Adapters", "Search", "applied", "folded", "search"]
