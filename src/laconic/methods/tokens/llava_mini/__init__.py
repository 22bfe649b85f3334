"""LLaVA-Mini: what the question needs of an image is fused into its text before the decoder (arXiv 2501.03895)."""

from laconic.methods.tokens.llava_mini.method import LlavaMini as LlavaMini
