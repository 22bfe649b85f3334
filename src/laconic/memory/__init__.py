"""Memories: what was read once and is kept, on disk and shared between processes."""
