"""The compressed cache: parts, layers, the attention seam, and the contract of methods that act on it."""
