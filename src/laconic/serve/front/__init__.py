"""The process that speaks HTTP: it knows requests, keys and queues, and loads no model and no torch."""
