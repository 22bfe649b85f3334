"""Procedural scenes and the questions about them."""
