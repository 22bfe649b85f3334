"""An OpenAI-compatible server of compressed contexts: a front that speaks HTTP, and one process per model behind it."""
