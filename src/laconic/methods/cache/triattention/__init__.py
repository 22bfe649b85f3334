"""TriAttention: see `method`, and `fit` for what it needs measured."""

from laconic.methods.cache.triattention.method import TriAttention as TriAttention
