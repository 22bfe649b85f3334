"""CompLLM: every short segment by itself becomes a few concept embeddings (arXiv 2509.19228)."""

from laconic.methods.memory.compllm.method import CompLLM as CompLLM
