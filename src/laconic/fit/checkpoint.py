"""What a training leaves in its folder so that it can go on: one checkpoint and a log.

A checkpoint is one safetensors file, replaced in one step: tensors of the module and of the optimisers, and the rest as JSON
in its header. A process that is killed while writing leaves the previous checkpoint intact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from laconic.atomic import replacing
from laconic.errors import ArtifactError

CHECKPOINT, LOG = "checkpoint.safetensors", "train.log"
KEY = "laconic_checkpoint"


def save_state(
    folder: Path, optimizers: Sequence[torch.optim.Optimizer], state: dict[str, Any], module: nn.Module | None = None
) -> None:
    """Write the optimisers' state, `module` if there is one, and `state` (JSON values) into `folder`."""
    tensors = {} if module is None else {f"module.{name}": _copied(x) for name, x in module.state_dict().items()}
    groups: list[Any] = []
    for i, optimizer in enumerate(optimizers):
        packed = optimizer.state_dict()
        groups.append(packed["param_groups"])
        for key, entry in packed["state"].items():
            tensors |= {f"optimizer.{i}.{key}.{name}": _plain(torch.as_tensor(x)) for name, x in entry.items()}
    with replacing(folder / CHECKPOINT) as unfinished:
        save_file(tensors, unfinished, {KEY: json.dumps({"state": state, "groups": groups})})


def load_state(folder: Path, optimizers: Sequence[torch.optim.Optimizer], module: nn.Module | None = None) -> dict[str, Any]:
    """Restore what `save_state` wrote; returns its `state`."""
    saved = _header(folder)
    entries: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    own: dict[str, Tensor] = {}
    for name, tensor in load_file(folder / CHECKPOINT).items():
        if name.startswith("module."):
            own[name.removeprefix("module.")] = tensor
        else:
            _, i, key, field = name.split(".", 3)
            entries[int(i)].setdefault(int(key), {})[field] = tensor
    if module is not None:
        module.load_state_dict(own)
    for optimizer, entry, groups in zip(optimizers, entries, saved["groups"], strict=True):
        optimizer.load_state_dict({"state": entry, "param_groups": groups})
    state: dict[str, Any] = saved["state"]
    return state


def resumable(folder: Path, settings: dict[str, Any], free: Sequence[str]) -> dict[str, Any]:
    """The `state` in `folder`, which must have been made with `settings`, except for the names in `free`.

    Raises:
        ArtifactError: there is no checkpoint, or it was made with other settings.
    """
    try:
        state: dict[str, Any] = _header(folder)["state"]
        before = state["settings"]
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{str(folder)!r} holds no checkpoint to resume from: {error}; drop --resume to start a training there."
        ) from None
    now = json.loads(json.dumps(settings))  # as JSON has it in the checkpoint: tuples become lists
    changed = [name for name, value in now.items() if name not in free and before.get(name) != value]
    if changed:
        raise ArtifactError(f"the checkpoint was made with other settings ({', '.join(changed)}); give the same ones.")
    return state


def noting(folder: Path | None, log: Callable[[str], None]) -> Callable[[str], None]:
    """Writes a line to the log file in `folder`, if there is a folder, and passes it to `log`."""

    def note(line: str) -> None:
        if folder is not None:
            with (folder / LOG).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        log(line)

    return note


def _header(folder: Path) -> dict[str, Any]:
    with safe_open(folder / CHECKPOINT, "pt") as file:
        found: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
    return found


def _copied(x: Tensor) -> Tensor:
    """In memory of its own: tied weights share theirs, and safetensors takes no two tensors in one place."""
    return x.detach().to("cpu", copy=True).contiguous()


def _plain(x: Tensor) -> Tensor:
    return x.detach().cpu().contiguous()
