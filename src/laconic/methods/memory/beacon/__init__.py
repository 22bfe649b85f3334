"""Activation Beacon: tokens among the text whose keys and values replace it, window after window (arXiv 2401.03462)."""

from laconic.methods.memory.beacon.method import Beacon as Beacon
