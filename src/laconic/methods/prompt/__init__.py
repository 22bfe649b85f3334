"""Methods that shorten the text of a prompt before any model reads it."""
