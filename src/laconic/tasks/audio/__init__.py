"""Procedural sound and the questions about it."""
