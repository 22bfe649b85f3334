"""The text that a weight method looks at: windows of tokens, as an artifact."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from laconic.fit.contract import Fit
from laconic.tasks.text import corpus
from laconic.tasks.text.documents import SOURCE


@dataclass(kw_only=True)
class CalibrationFit(Fit):
    """Windows of a text as token ids, drawn by seed. What is computed from them depends on what the method is asked for, so
    the artifact holds the windows, and the method reads them when it is attached.

    Args:
        windows: how many (32). `tokens`: in each (256).
        text: a UTF-8 file to draw them from; None: Python's documentation, of which evaluation reads other documents.
    """

    windows: int = 32
    tokens: int = 256
    text: Path | None = None

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"text": None if self.text is None else self.text.name}

    def facts(self) -> dict[str, Any]:
        if self.text is None:
            source, text = SOURCE, "\n".join(corpus.lines("prose"))
        else:
            source, text = self.text.name, self.text.expanduser().read_text(encoding="utf-8")
        ids = windows_of(self.tokenizer, text, self.windows, self.tokens, self.seed)
        self._ids = ids.to(torch.int32)
        return {"source": source, "sha256": hashlib.sha256(text.encode()).hexdigest()[:16], "tokens": ids.numel()}

    def tensors(self) -> dict[str, Tensor]:
        """`ids`, int32 [windows, tokens]."""
        return {"ids": self._ids}


def windows_of(tokenizer: Any, text: str, windows: int, tokens: int, seed: int) -> Tensor:
    """Token ids of windows at random places of a text, [windows, tokens].

    Raises:
        ValueError: the text is shorter than one window.
    """
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < tokens:
        raise ValueError(f"the calibration text has {len(ids)} tokens; it needs at least tokens={tokens}.")
    rng = random.Random(f"calibration-{seed}")
    starts = [rng.randrange(len(ids) - tokens + 1) for _ in range(windows)]
    return torch.tensor([ids[at : at + tokens] for at in starts])
