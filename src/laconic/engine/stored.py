"""Contexts that come from a store when they have been read before, by any process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic.artifact import model_name
from laconic.cache.saved import load
from laconic.engine.context import Context
from laconic.engine.context_key import context_key
from laconic.engine.request import Request
from laconic.errors import SavedContextError
from laconic.memory.contract import MemoryMethod
from laconic.memory.store import DamagedError, SegmentStore
from laconic.prompts.text import PromptError
from laconic.shortening.contract import PromptMethod
from laconic.specs import methods_of

if TYPE_CHECKING:
    from laconic.engine.engine import Engine

_OF_A_READING: dict[str, Any] = {
    "prompt": None, "context": "", "system": None, "images": (), "methods": (), "protect": (), "chunk": None,
}  # fmt: skip
"""Fields of a request that say how a context is read; a saved one has been."""


def read_stored(engine: Engine, request: Request, store: SegmentStore) -> Context:
    """The context that `request` reads, from `store`; it is read, compressed and put there unless it is there.

    Of several that ask for the same context at once one reads it, the others wait. A file that is damaged is made again, and
    the context's notes say so.

    Raises:
        LaconicError: see `Engine.read`; nothing is stored then.
        StoreError: the store can be neither read nor written.
    """
    request = replace(request, methods=methods_of(request.methods or ()))
    _check(request)
    prompt = engine.prompt(replace(request, question=request.question or "?"))
    request = replace(request, prompt=prompt)
    key = context_key(engine.model, engine.tokenizer, request, prompt)
    made: list[Context] = []
    notes: list[str] = []
    facts = {"kind": "context", "model": model_name(engine.model), "tokens": f"{len(prompt.context):,}"}
    facts["methods"] = " + ".join(f"{method.name}:{method.budget}" for method in request.methods or ()) or "none"

    def write(path: Path) -> None:
        made.append(engine.read(request))
        made[-1].save(path)

    while True:
        try:
            path = store.get(key)
        except DamagedError as error:
            path = None
            notes.append(f"it was read again, because what was stored is damaged: {error}")
        if path is None:
            path = store.put(key, write, facts=facts)
        if made:
            made[-1].notes[:0] = notes
            return made[-1]
        try:
            saved = load(path, engine.model, engine.tokenizer)
        except SavedContextError:
            if path.exists():
                raise
            continue  # it went between the two, to make room for another
        return replace(engine.read(replace(request, **_OF_A_READING, saved=saved)), stored=True)


def _check(request: Request) -> None:
    """Refuse what a context in a store does not say of itself."""
    if request.history:
        raise PromptError("a store holds contexts without earlier turns; leave out history or the store.")
    if request.memory is not None:
        raise PromptError("a memory is a file already (`Memory.save`); a store holds texts that were read. Leave it out.")
    for method in request.methods or ():
        if isinstance(method, PromptMethod | MemoryMethod):
            raise PromptError(
                f"{method.name} changes the text before it is read, which a store does not hold; leave one out."
            )
