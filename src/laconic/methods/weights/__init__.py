"""Methods that act on a model's weights."""
