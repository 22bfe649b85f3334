"""What `generate()` knows about a pass and a plain call of the model does not say: which of its tokens are prompt.

A prompt may come in chunks of any size, one token included, and a pass over several tokens may verify drafts, so the number
of tokens does not tell. `generate()` has every pass prepared by the model's `prepare_inputs_for_generation`, the method that
models override to add what they need, and says there what it feeds. A note of it travels with the arguments of the call, and
is removed before the model sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from transformers import PreTrainedModel

from laconic.calls import input_of
from laconic.errors import SessionError

NOTE = "laconic_generated"
"""Name of the note: True where `generate()` feeds what it has generated, False where it feeds a prompt."""


@contextmanager
def noted(model: PreTrainedModel) -> Iterator[None]:
    """While open, the arguments that `model.generate()` prepares carry the note."""
    if not model.can_generate():
        yield
        return
    own = vars(model)  # of this model alone: its class is not touched
    before = own.get("prepare_inputs_for_generation")
    prepare: Any = model.prepare_inputs_for_generation

    @wraps(prepare)  # `generate()` reads the signature
    def prepared(*args: Any, **kwargs: Any) -> dict[str, Any]:
        # a number of tokens to feed is given for those that were generated, and for the first pass over a prompt of which
        # the cache holds a part
        fed, first = kwargs.get("next_sequence_length"), kwargs.get("is_first_iteration")
        if fed is not None and fed < 1:
            raise SessionError(_short(kwargs["past_key_values"].get_seq_length(), fed))
        inputs: dict[str, Any] = prepare(*args, **kwargs)
        return inputs | {NOTE: fed is not None and not first}

    own["prepare_inputs_for_generation"] = prepared
    try:
        yield
    finally:
        del own["prepare_inputs_for_generation"]
        if before is not None:
            own["prepare_inputs_for_generation"] = before


def _short(seen: int, fed: int) -> str:
    return (
        f"the prompt has {seen + fed} tokens, and the cache has seen {seen}: generate() takes the whole text so far and "
        "feeds what is new. Give the context's tokens before those of the question (laconic.read() does it for you), or the "
        "question alone with an attention_mask over both."
    )


def generated_in(kwargs: dict[str, Any], start: int, recording: bool = False) -> int:
    """How many tokens of a pass, the last ones, were generated. Removes the note from its arguments.

    Without a note, from a plain call, several tokens are prompt, and so is the first token of all; a single later one was
    decoded. If the cache records its past, some of them may be taken back, so all later ones were generated. In the first
    pass of `generate()` drafts may follow the prompt: it asks for their logits and for those of the prompt's last token.

    Args:
        kwargs: of the model.
        start: tokens that the cache has seen before; `recording`: whether it records its past.
    """
    note, length = kwargs.pop(NOTE, None), input_of(kwargs).shape[1]
    if note is None:
        return length if start and (length == 1 or recording) else 0
    if note:
        # An assistant says so of its very first pass, too: it takes back the last token of the prompt when no draft is
        # accepted, so that token must not take part in a cut.
        return length if start else min(1, length - 1)
    logits = kwargs.get("logits_to_keep")
    drafts = logits - 1 if isinstance(logits, int) and logits > 1 else 0
    return min(drafts, length - 1)
