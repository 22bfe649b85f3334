"""From Tokens to Thoughts: a model's clusters of words beside human categories (arXiv 2505.17117)."""

from laconic.methods.lens.tokens_to_thoughts.method import TokensToThoughts as TokensToThoughts
