"""Length penalty: reinforcement learning that pays less for long right answers (arXiv 2502.04463)."""

from laconic.methods.reasoning.length_penalty.method import LengthPenalty as LengthPenalty
