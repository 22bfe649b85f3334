"""A cache method that keeps everything and shows every layer of every pass to a function; and greedy decoding with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from laconic.cache.contract import CacheMethod
from laconic.cache.layer import CompressedLayer
from laconic.cache.observe import Observation
from laconic.cache.parts.base import Part
from laconic.session import compress


def _nothing(obs: Observation) -> None:
    return None


@dataclass(kw_only=True)
class LayerProbe(CacheMethod):
    """Nothing is removed; `prefill` sees every layer after a prefill pass, `token` after a decoded token."""

    prefill: Callable[[Observation], None] = _nothing
    token: Callable[[Observation], None] = _nothing

    name: ClassVar[str] = "layer_probe"
    default_keep: ClassVar[float | None] = None

    def reduce(self, layer: CompressedLayer, obs: Observation, columns: dict[str, torch.Tensor]) -> list[Part] | None:
        self.prefill(obs)
        return None

    def due(self, layer: CompressedLayer) -> bool:
        return True

    def decoded(self, layer: CompressedLayer, obs: Observation) -> None:
        self.token(obs)


def greedy(model: PreTrainedModel, tokenizer: Any, ids: Sequence[int], watch: LayerProbe, most: int) -> Iterator[int]:
    """Tokens of the greedy answer to the prompt `ids`, at most `most`, up to a line break or the end of the turn.

    All tokens of the prompt but the last are prefilled; every token yielded was predicted by the pass that `watch` saw last.
    That is why this does not go through `laconic.engine`, whose first token comes out of the prefill: the caller takes
    measurements between one token and the next.
    """
    ends = {tokenizer.eos_token_id, *_ends_of_turn(model)}
    with torch.inference_mode(), compress(model, watch) as session:
        fed, past = torch.tensor([list(ids[:-1])], device=model.device), None
        began = False
        for step in range(most + 1):
            logits = model(input_ids=fed, past_key_values=past, logits_to_keep=1).logits
            past = session.cache
            token = int(logits[0, -1].argmax()) if step else int(ids[-1])
            if step:
                breaks = "\n" in tokenizer.decode([token])
                if token in ends or (breaks and began):
                    return
                began = began or not breaks
                yield token
            fed = torch.tensor([[token]], device=model.device)


def _ends_of_turn(model: PreTrainedModel) -> list[int]:
    end = getattr(model.generation_config, "eos_token_id", None)
    return list(end) if isinstance(end, (list, tuple)) else [] if end is None else [end]
