"""Architectures, trained as such: see `laconic.layers.contract`."""
