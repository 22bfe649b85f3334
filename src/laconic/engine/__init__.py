"""One path from a prompt to an answer and what it cost: requests, sessions or the stock model, conversations."""
