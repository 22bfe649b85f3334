"""The version of laconic, and of what its results depend on."""

from __future__ import annotations

import torch
import transformers

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions that recipes, saved contexts and result rows carry."""
    return {"laconic": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
