"""One call of `generate()` on a session's cache, and the context that may be read before it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteriaList

from laconic.engine.request import Request
from laconic.engine.stock import StockSession
from laconic.measure.memory import Memory
from laconic.measure.token_clock import TokenClock, Words
from laconic.prompts.inputs import on_device
from laconic.session import Session


@dataclass(frozen=True)
class Generated:
    """New tokens of one sequence.

    Attributes:
        ids: up to the end of the turn; `text`: of them, without special tokens.
        finish: "eos"; "length" if the answer was cut; "stop" if a stopping criterion of the request ended it.
    """

    text: str
    ids: list[int]
    finish: str


@contextmanager
def opened(session: Session | StockSession) -> Iterator[tuple[Memory, list[str]]]:
    """An open session without gradients, a clock of its memory, and the list that its warnings go into: each different one
    once, in the order in which they came; warnings for programmers are dropped."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        with Memory() as memory, torch.inference_mode(), session:
            yield memory, notes
    notes += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning))


def read_context(
    session: Session | StockSession,
    ids: list[int],
    chunk: int | None = None,
    inputs: Mapping[str, Any] | None = None,
    cache: Any | None = None,
) -> torch.Tensor:
    """Read a context into a new cache of an open session.

    Args:
        chunk: in pieces of this many tokens; not with images.
        inputs: what the model gets besides the ids: the pixels of images and the like.
        cache: an empty one to read it into; None: the session makes one.

    Returns:
        logits of what follows the context, [1, V].
    """
    model = session.model
    given = on_device(model, inputs or {}, len(ids))
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        given["logits_to_keep"] = 1
    soft: torch.Tensor | None = given.pop("inputs_embeds", None)  # of all ids, some of which stand for no token
    size = chunk or len(ids)
    with torch.no_grad():
        for start in range(0, len(ids), size):
            stop = start + size
            piece: dict[str, Any] = (
                {"input_ids": torch.tensor([ids[start:stop]], device=model.device)}
                if soft is None
                else {"inputs_embeds": soft[:, start:stop]}
            )
            past = session.cache if start else cache  # without one a session begins a new cache
            out = model(**piece, past_key_values=past, use_cache=True, **given)
    return out.logits[0, -1:]


def generate(
    session: Session | StockSession,
    tokenizer: Any,
    inputs: Mapping[str, Any],
    request: Request,
    at_first: Callable[[], None],
    on_text: Callable[[str], None] | None = None,
) -> tuple[list[Generated], TokenClock]:
    """Decode what follows the prompts in `inputs`, as `request` says.

    Args:
        inputs: of the model, `input_ids` [B, n] among them: whole prompts, of which the session's cache may hold a part.
        at_first: called when the whole prompt is in the cache and nothing has been decoded.
        on_text: called with every finished piece of text, for one sequence.

    Returns:
        the new tokens of each of the B sequences, and when they came out.
    """
    model, cache = session.model, session.cache
    if request.seed is not None:
        torch.manual_seed(request.seed)
    options: dict[str, Any] = {"do_sample": request.sample, "num_beams": 1, "max_new_tokens": request.max_new_tokens}
    if request.sample:
        options["temperature"] = 1.0 if request.temperature is None else request.temperature
    else:
        options |= {"temperature": None, "top_p": None, "top_k": None}
    if request.chunk and (cache is None or cache.get_seq_length() == 0):
        options["prefill_chunk_size"] = request.chunk
    if tokenizer.pad_token_id is not None:
        options["pad_token_id"] = tokenizer.pad_token_id
    if on_text is not None:
        options["streamer"] = Words(tokenizer, on_text)
    options |= request.options
    clock = TokenClock(at_first)
    options["stopping_criteria"] = StoppingCriteriaList([clock, *options.get("stopping_criteria", ())])
    out = model.generate(**inputs, past_key_values=cache, use_cache=True, **options)  # type: ignore[operator]
    new = out[:, inputs["input_ids"].shape[1] :].tolist()
    return [_read(model, tokenizer, ids, options["max_new_tokens"]) for ids in new], clock


def ends_of_turn(model: PreTrainedModel) -> list[int]:
    """The tokens at which `generate()` stops; none where the model's generation config names none."""
    given = model.generation_config.eos_token_id  # type: ignore[union-attr]
    return [given] if isinstance(given, int) else list(given or ())


def _read(model: PreTrainedModel, tokenizer: Any, ids: list[int], room: int) -> Generated:
    """The answer in `ids`, which had room for `room` tokens; what follows the end of its turn is padding, added
    while the rest of the batch is decoded."""
    ends = ends_of_turn(model)
    stop = next((i + 1 for i, token in enumerate(ids) if token in ends), None)
    finish = "eos" if stop is not None else "length" if len(ids) >= room else "stop"
    ids = ids[:stop]
    return Generated(tokenizer.decode(ids, skip_special_tokens=True), ids, finish)
