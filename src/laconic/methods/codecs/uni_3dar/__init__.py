"""Uni-3DAR: points in space as the tokens of an octree (arXiv 2503.16278)."""

from laconic.methods.codecs.uni_3dar.method import Uni3DAR as Uni3DAR
