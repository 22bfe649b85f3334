"""ConceptMoE: only tokens at learned boundaries go through the deep middle of a model (arXiv 2601.21420)."""

from laconic.methods.layers.conceptmoe.method import ConceptMoE as ConceptMoE
