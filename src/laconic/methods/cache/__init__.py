"""Methods that decide which entries of the KV cache stay, and in which form."""
