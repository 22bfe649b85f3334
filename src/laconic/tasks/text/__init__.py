"""Retrieval tasks over text."""
