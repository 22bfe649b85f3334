"""VoCo-LLaMA: an image in the keys and values of a few tokens after it (arXiv 2406.12275)."""

from laconic.methods.memory.voco_llama.method import VoCoLLaMA as VoCoLLaMA
