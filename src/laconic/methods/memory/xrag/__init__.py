"""xRAG: a document in one soft token, its retrieval embedding through a projector (arXiv 2405.13792)."""

from laconic.methods.memory.xrag.method import XRAG as XRAG
