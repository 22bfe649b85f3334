"""The models that come with laconic: their names, and the folders of their files."""

from difflib import get_close_matches
from pathlib import Path

MODELS = (
    "testbed/lm",
    "testbed/facts",
    "testbed/moe",
    "testbed/reasoner",
    "testbed/audio",
    "testbed/video",
    "testbed/vlm",
    "testbed/vlm-large",
)


def model_path(name: str) -> Path:
    """Folder of a shipped model, for example ``model_path("testbed/lm")``, loadable with ``from_pretrained``.

    Raises:
        ValueError: `name` is not one of `MODELS`; the closest known names are offered.
    """
    if name not in MODELS:
        near = get_close_matches(name, MODELS, cutoff=0.3) or MODELS
        raise ValueError(f"{name!r} is not a testbed model; did you mean {' or '.join(near)}?")
    return Path(__file__).parent / name
