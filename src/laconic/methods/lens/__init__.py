"""Lenses: what single tokens carry, read without changing the model."""
