"""Methods that act on a model's weights: their contract and their seam."""
