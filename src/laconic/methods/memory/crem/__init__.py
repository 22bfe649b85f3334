"""CREM: chorus tokens that are both an embedding for retrieval and a memory to answer from (arXiv 2602.19091)."""

from laconic.methods.memory.crem.method import CREM as CREM
