"""Systems that read a context into soft tokens."""
