"""EAS: attention sub-layers that a task does not need, with adapters in their place (arXiv 2403.15226)."""

from laconic.methods.weights.eas.method import EAS as EAS
