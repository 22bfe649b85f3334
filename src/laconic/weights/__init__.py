"""Methods that act on a model's weights: layers without attention, adapters in its place."""

from laconic.weights.eas import Adapter, Adapters, applied, folded
from laconic.weights.eas_search import Search, search

__all__ = ["Adapter", "Adapters", "Search", "applied", "folded", "search"]
