"""Distillation: a narrower model of the same class that learns what the model finds likely (arXiv 1503.02531)."""

from laconic.methods.weights.distillation.method import Distillation as Distillation
