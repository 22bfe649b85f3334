"""Deep Forcing: a rolling KV cache for long videos, half of it early frames that stay (arXiv 2512.05081)."""

from laconic.methods.codecs.deep_forcing.method import DeepForcing as DeepForcing
