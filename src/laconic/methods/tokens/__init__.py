"""Methods that shorten the stream of visual tokens, before the decoder or between its layers."""
