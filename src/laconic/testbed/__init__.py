"""Small trained models and tasks that tell whether a compression method keeps what matters, without a
download.
"""

from difflib import get_close_matches
from pathlib import Path

__all__ = ["MODELS", "model_path"]

MODELS = ("testbed/lm", "testbed/vlm", "testbed/vlm-large")


def model_path(name: str) -> Path:
    """Folder of a testbed model, for example ``model_path("testbed/lm")``, loadable with ``from_pretrained``.

    Raises ``ValueError`` with the closest known names if ``name`` is not one of :data:`MODELS`.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, cutoff=0.3) or MODELS
        raise ValueError(f"name={name!r} is not a testbed model; did you mean {' or '.join(near)}?")
    return Path(__file__).parent / name.removeprefix("testbed/")
