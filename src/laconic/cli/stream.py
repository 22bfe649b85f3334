"""Prints an answer while it is decoded."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from transformers import TextStreamer

from laconic.cli.common import clean


class Streamer(TextStreamer):
    """transformers' streamer, without the prompt, without special tokens and without control characters."""

    def __init__(self, tokenizer: Any, console: Console):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)  # type: ignore[arg-type]
        self.console = console

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.console.print(clean(text), end="\n" if stream_end else "", markup=False, soft_wrap=True)
        self.console.file.flush()
