"""AutoCompressor: summaries of segments that accumulate, each made with the earlier ones in view (arXiv 2305.14788)."""

from laconic.methods.memory.autocompressor.method import AutoCompressor as AutoCompressor
