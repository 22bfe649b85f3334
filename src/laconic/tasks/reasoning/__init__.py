"""Problems that take several steps, with the chain of thought that solves them."""
