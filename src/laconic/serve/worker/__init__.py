"""The process that holds a model: it prepares prompts, answers batches of requests, and builds contexts."""
