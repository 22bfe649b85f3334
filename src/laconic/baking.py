"""`laconic.bake`: a model with the weights that a method gives it, as a folder that transformers loads without laconic."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from laconic.artifact import model_name
from laconic.atomic import sync
from laconic.errors import LaconicError
from laconic.fit.contract import Fit, TrainingFit
from laconic.fit.find import fit_of
from laconic.fit.settings import parse
from laconic.fit.trainer import Trainer, silent
from laconic.method import Method, create_method, find
from laconic.version import versions
from laconic.weights.edit import FittedEdit, WeightEdit
from laconic.weights.restored import restored

CARD = "README.md"


class BakeError(LaconicError, ValueError):
    """A model cannot be baked: where it is to go, or with what."""


@dataclass(frozen=True)
class Baked:
    """What was written.

    Attributes:
        folder: where. `method`: with its parameters.
        facts: what was achieved, by name. `calibration`: what the method was fitted on; empty where on nothing.
        bytes: of the weights in the folder. `bytes_before`: of the model's own weights.
        parameters: of the model in the folder. `parameters_before`: of the model.
    """

    folder: Path
    method: str
    model: str
    facts: dict[str, Any]
    calibration: dict[str, Any]
    bytes: int
    bytes_before: int
    parameters: int
    parameters_before: int


def bake(
    model: PreTrainedModel,
    tokenizer: Any,
    method: Method | str,
    out: str | Path,
    settings: Mapping[str, str] | None = None,
    note: Callable[[str], None] = silent,
) -> Baked:
    """Write `model` with the weights that `method` gives it, its tokenizer and a card into the new folder `out`.

    The folder appears when everything is in it; a process that is killed leaves none. The model itself is not changed.

    Args:
        tokenizer: of the model, or its processor.
        method: a method of the site ``weights`` whose weights are those of any prompt, such as ``"NAME:keep=0.5"``.
        settings: of the measurement that the method needs, where it was given no artifact; see `laconic fit`.
        note: receives lines of progress.

    Raises:
        BakeError: `out` exists, or its parent does not; or the method's weights cannot be saved.
        ArtifactError: the method has to be trained first.
    """
    chosen = create_method(method) if isinstance(method, str) else method
    folder = Path(out).expanduser()
    _check(chosen, folder)
    assert isinstance(chosen, WeightEdit)
    before = _size(model)
    calibration = {} if chosen.neutral else fitted(chosen, model, tokenizer, settings, note)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        with restored(model), torch.no_grad():
            facts: dict[str, Any] = {}
            if not chosen.neutral:
                chosen.prepare(model)
                facts = chosen.edit(model)
            after = _size(model)
            if chosen.neutral:
                model.save_pretrained(part)
            else:
                chosen.write(model, part)
        tokenizer.save_pretrained(part)
        stored = sum(path.stat().st_size for path in part.glob("*.safetensors"))
        baked = Baked(folder, str(chosen), model_name(model), facts, calibration, stored, before[1], after[0], before[0])
        (part / CARD).write_text(card(baked, chosen.saves), encoding="utf-8")
        part.chmod(0o755)  # a temporary folder is for its owner alone, and so are weights as safetensors writes them
        for path in part.glob("*.safetensors"):
            path.chmod(0o644)
        for path in (*part.iterdir(), part):
            sync(path)
        _check(chosen, folder)  # meanwhile another process may have made it
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return baked


def card(baked: Baked, saves: str) -> str:
    """The folder's model card, Markdown."""
    rows = {
        "model": f"`{baked.model}`",
        "method": f"`{baked.method}`",
        **{name: f"{value:.4f}" if isinstance(value, float) else str(value) for name, value in baked.facts.items()},
        "parameters": f"{baked.parameters:,} of {baked.parameters_before:,}",
        "bytes of weights": f"{baked.bytes:,} of {baked.bytes_before:,}",
        **{f"calibration: {name}": str(value) for name, value in baked.calibration.items()},
        "saves": saves,
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }
    lines = [f"# {baked.model}, {baked.method.partition('(')[0]}", "", "Made by `laconic bake`.", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"


def _check(method: Method, folder: Path) -> None:
    if not isinstance(method, WeightEdit):
        raise BakeError(
            f"{method.name} writes no weights that hold for every prompt, so there is nothing to save; use it in a session, "
            "or choose another method of the site weights."
        )
    if folder.exists() or folder.is_symlink():
        raise BakeError(f"{str(folder)!r} exists already; choose another folder, or remove it first.")
    if not folder.parent.is_dir():
        raise BakeError(f"the folder {str(folder.parent)!r}, in which {folder.name!r} is to be made, does not exist.")


def fitted(
    method: WeightEdit,
    model: PreTrainedModel,
    tokenizer: Any,
    settings: Mapping[str, str] | None = None,
    note: Callable[[str], None] = silent,
) -> dict[str, Any]:
    """Measure what `method` needs, unless it has been given an artifact, and give it that; the facts of what was measured.

    Raises:
        BakeError: settings of a measurement that is not made.
    """
    cls = fit_of(find(method.name))
    needed = isinstance(method, FittedEdit) and method.artifact is None and method.fitted is None
    if settings and not needed:
        raise BakeError(
            f"{method.name}: settings {', '.join(settings)} are of a measurement that is not made here; leave them out."
        )
    if not needed or cls is None or issubclass(cls, TrainingFit):
        return {}
    assert isinstance(method, FittedEdit)
    fit: Fit = parse(cls, settings or {})
    method.fitted = Trainer(fit, model, tokenizer, None, note).run()
    return {name: value for name, value in method.fitted.data.items() if isinstance(value, (str, int, float))}


def _size(model: PreTrainedModel) -> tuple[int, int]:
    """Parameters and their bytes; tied ones count once."""
    own = list(model.parameters())
    return sum(p.numel() for p in own), sum(p.nbytes for p in own)
