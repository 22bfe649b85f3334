"""SCOUT: a local mixer in every layer, and attention over one checkpoint token in every k (arXiv 2509.00935)."""

from laconic.methods.layers.scout.method import Scout as Scout
