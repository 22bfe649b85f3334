"""Methods that shorten thinking."""
