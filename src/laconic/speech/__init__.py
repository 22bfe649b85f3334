"""Fewer tokens of sound: the contract of methods, and sessions of encoder-decoder speech models."""
