"""What a training leaves in its folder, so that it can be read and can go on: a log, optimizer state, numbers.

Tensors are safetensors and the rest is JSON; nothing is pickled. A trainer writes its weights itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from laconic.errors import RecipeError

TENSORS, NUMBERS, LOG = "optimizer.safetensors", "trainer.json", "train.log"
FREE = ("steps", "log_every", "save_every")
"""Settings that may change when a training goes on."""


def save_state(folder: Path, optimizers: Sequence[torch.optim.Optimizer], state: dict[str, Any]) -> None:
    """Write the optimizers' state and ``state`` (JSON values) into ``folder``."""
    tensors: dict[str, Tensor] = {}
    groups: list[Any] = []
    for i, optimizer in enumerate(optimizers):
        packed = optimizer.state_dict()
        groups.append(packed["param_groups"])
        for key, entry in packed["state"].items():
            tensors |= {f"{i}.{key}.{name}": torch.as_tensor(value).contiguous() for name, value in entry.items()}
    save_file(tensors, folder / TENSORS)
    (folder / NUMBERS).write_text(json.dumps({"state": state, "groups": groups}) + "\n", encoding="utf-8")


def load_state(folder: Path, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restore what :func:`save_state` wrote; returns its ``state``."""
    saved: dict[str, Any] = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
    entries: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, tensor in load_file(folder / TENSORS).items():
        i, key, field = name.split(".", 2)
        entries[int(i)].setdefault(int(key), {})[field] = tensor
    for optimizer, entry, groups in zip(optimizers, entries, saved["groups"], strict=True):
        optimizer.load_state_dict({"state": entry, "param_groups": groups})
    state: dict[str, Any] = saved["state"]
    return state


def resumable(folder: Path, settings: Any, free: Sequence[str] = FREE) -> dict[str, Any]:
    """The ``state`` in ``folder``, made with the dataclass ``settings`` but for the names in ``free``.

    Raises:
        RecipeError: there is no checkpoint, or it was made with other settings.
    """
    try:
        state: dict[str, Any] = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))["state"]
        before = state["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{str(folder)!r} holds no checkpoint to resume from: {error}") from None
    changed = [name for name, value in asdict(settings).items() if name not in free and before.get(name) != value]
    if changed:
        raise RecipeError(f"the checkpoint was made with other settings ({', '.join(changed)}); give the same ones.")
    return state


def noting(folder: Path, log: Callable[[str], None]) -> Callable[[str], None]:
    """Says a line to the log file in ``folder`` and to ``log``."""

    def note(line: str) -> None:
        with (folder / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        log(line)

    return note


@contextmanager
def frozen(model: PreTrainedModel, attention: str | None = None) -> Iterator[None]:
    """No parameter of ``model`` learns inside the block, and it attends by ``attention`` if that is given."""
    before, learning = model.config._attn_implementation, [p.requires_grad for p in model.parameters()]
    try:
        model.requires_grad_(False)
        if attention:
            model.set_attn_implementation(attention)
        yield
    finally:
        if attention:
            model.set_attn_implementation(before)
        for parameter, state in zip(model.parameters(), learning, strict=True):
            parameter.requires_grad_(state)
