"""Architectures: models whose layers compress what they attend to, trained as such."""
