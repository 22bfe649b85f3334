"""Mean pooling: the average of every few hidden states, projected into the embedding space (arXiv 2510.20797)."""

from laconic.methods.memory.mean_pool.method import MeanPool as MeanPool
