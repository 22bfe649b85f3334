"""CoLaR: blocks of a chain of thought as single vectors that the model draws for itself (arXiv 2505.16552)."""

from laconic.methods.reasoning.colar.method import CoLaR as CoLaR
