"""SIRI: reinforcement learning under a cap on the answers that falls and rises in cycles (arXiv 2509.25176)."""

from laconic.methods.reasoning.siri.method import SIRI as SIRI
