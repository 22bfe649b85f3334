"""CompressKV: a few heads per layer that look at whole answers choose one token set for all (arXiv 2508.02401)."""

from laconic.methods.cache.compresskv.method import CompressKV as CompressKV
