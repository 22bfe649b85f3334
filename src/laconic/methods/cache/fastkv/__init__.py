"""FastKV: the whole prompt up to a middle layer, then only the most attended tokens travel on (arXiv 2502.01068)."""

from laconic.methods.cache.fastkv.method import FastKV as FastKV
