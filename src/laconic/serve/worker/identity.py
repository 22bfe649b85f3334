"""What a stored context is, as one digest: whoever asks for the same thing gets the same one, and for nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from laconic.engine.context_key import method_facts, model_facts
from laconic.method import Method

SCHEMA = 4


def of_model(model: Any, reader: Any) -> dict[str, Any]:
    """Everything of a model and its tokenizer or processor that a compressed context depends on."""
    tokenizer = getattr(reader, "tokenizer", reader)
    return {
        **model_facts(model, tokenizer),
        "template": str(getattr(reader, "chat_template", None)),
        "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
    }


def of_context(
    model: dict[str, Any],
    segments: Sequence[Sequence[int]],
    methods: Sequence[Method],
    protect: Any,
    form: str,
    said: Any,
    parent: str | None = None,
    salt: str | None = None,
) -> str:
    """A digest of a context.

    Args:
        model: see `of_model`. `segments`: token ids, pass by pass: what stays depends on where passes end.
        protect: as it was asked for; where it is found depends on the ids and the tokenizer alone.
        form: a text goes on within the user's turn and turns do not, though their tokens may be equal.
        said: what is stored as text beside the tokens: a token that reaches over the end of a text belongs to what follows.
        parent: id of the context that these tokens come after, which stands for all that it was made of.
        salt: whatever else is to keep contexts apart.
    """
    facts = {
        "schema": SCHEMA,
        "model": model,
        "segments": [list(ids) for ids in segments],
        **method_facts(methods),
        "protect": protect,
        "form": form,
        "said": said,
        "parent": parent,
        "salt": salt,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
