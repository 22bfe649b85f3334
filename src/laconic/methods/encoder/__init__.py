"""Methods that work on the output of a vision encoder, or inside it."""
