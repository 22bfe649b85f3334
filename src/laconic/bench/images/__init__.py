"""The bench over images."""
