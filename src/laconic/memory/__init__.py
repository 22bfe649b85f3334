"""Memories: contexts that were read once and are kept small, in a prompt, in a file, or shared between processes."""
