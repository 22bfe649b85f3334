"""The version of laconic, and of what its results depend on."""

from __future__ import annotations

from importlib.metadata import version

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions that artifacts, saved contexts and result rows carry."""
    return {"laconic": __version__, "torch": version("torch"), "transformers": version("transformers")}
