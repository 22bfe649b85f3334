"""What a stored context is, as one digest: whoever asks for the same thing gets the same one, and for nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic.artifact import fingerprint
from laconic.cache.described import described
from laconic.cache.saved import FORMAT, settings
from laconic.method import Method
from laconic.version import versions

SCHEMA = 1


def of_model(model: Any, reader: Any) -> dict[str, Any]:
    """Everything of a model and its tokenizer that a compressed context depends on.

    The fingerprint samples the weights in memory, so the files that they came from are hashed, too, where they are known.
    """
    folder = Path(str(model.name_or_path))
    known = (".safetensors", ".json", ".jinja", ".model")
    files = sorted(p for p in folder.iterdir() if p.suffix in known) if folder.is_dir() else []
    tokenizer = getattr(reader, "tokenizer", reader)
    return {
        "fingerprint": fingerprint(model),
        "dtype": str(model.dtype),
        "settings": settings(model),
        "files": [(file.name, file.stat().st_size, _sha256(file)) for file in files],
        "commit": getattr(model.config, "_commit_hash", None),
        "template": str(getattr(reader, "chat_template", None)),
        "special": {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        "versions": versions(),
    }


def of_context(
    model: dict[str, Any], segments: Sequence[Sequence[int]], methods: Sequence[Method], protect: Any, form: str
) -> str:
    """A digest of a context.

    Args:
        model: see `of_model`. `segments`: token ids, pass by pass: what stays depends on where passes end.
        protect: as it was asked for; where it is found depends on the ids and the tokenizer alone.
        form: a text goes on within the user's turn and turns do not, though their tokens may be equal.
    """
    facts = {
        "schema": SCHEMA,
        "format": FORMAT,
        "model": model,
        "segments": [list(ids) for ids in segments],
        "methods": [{**described(method), "budget": str(method.budget)} for method in methods],
        "protect": protect,
        "form": form,
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
