"""What a stock vLLM can serve of what laconic has compressed: soft tokens, pruned image features, compressed contexts.

Names are imported when they are first used. Only `laconic.vllm.connector` needs vLLM itself; all others prepare what vLLM
is given, and run beside the model in transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from laconic.vllm.contexts import HandedOver as HandedOver
    from laconic.vllm.contexts import hand_over as hand_over
    from laconic.vllm.images import image_prompt as image_prompt
    from laconic.vllm.soft import encoded as encoded
    from laconic.vllm.soft import soft_prompt as soft_prompt

_HOMES = {
    "HandedOver": "contexts",
    "hand_over": "contexts",
    "image_prompt": "images",
    "encoded": "soft",
    "soft_prompt": "soft",
}

__all__ = ["HandedOver", "encoded", "hand_over", "image_prompt", "soft_prompt"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
