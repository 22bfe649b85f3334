"""LLMLingua-2: a bidirectional encoder says of every word whether it stays (arXiv 2403.12968)."""

from laconic.methods.prompt.llmlingua2.method import LLMLingua2 as LLMLingua2
