"""SlimMoE: every expert stays and becomes narrower, in stages of pruning and distillation (arXiv 2506.18349)."""

from laconic.methods.weights.slimmoe.method import SlimMoE as SlimMoE
