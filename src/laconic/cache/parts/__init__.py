"""Pieces of a layer's cache, each of which attends on its own: dense, ragged, packed, ranked, paired."""
