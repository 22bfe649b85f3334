"""Files of laconic 0.1 as artifacts: recipes (JSON), and weights (safetensors with another header)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from laconic.artifact import Artifact, Kind
from laconic.errors import ArtifactError


def convert(old: str | Path) -> Artifact:
    """The content of a file of laconic 0.1 as an artifact; all numbers stay bit for bit the same.

    Raises:
        ArtifactError: the file does not exist, or laconic 0.1 did not write it.
    """
    try:
        head, tensors = _read(Path(old))
        model, own, made = head.pop("model"), head.pop("fingerprint"), head.pop("made", {})
        method, versions = head.pop("method"), head.pop("versions", None)
        if tensors:  # settings and versions were inside `made`; what the method reads, next to it
            settings, versions = made.pop("settings", {}), made.pop("versions", {})
            return Artifact(method, "trained", model, own, head | made, tensors, settings, versions)
        if str(made.get("by", "")).startswith("laconic calibrate"):
            del made["by"]
        kind: Kind = "published" if own is None else "measured"
        return Artifact(method, kind, model, own, head["data"], {}, made, versions or {})
    except FileNotFoundError:
        raise ArtifactError(f"{str(old)!r} does not exist; name a file that laconic 0.1 wrote.") from None
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{str(old)!r} is neither a recipe nor a weights file of laconic 0.1: {error!r}.") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8")), {}
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {})["laconic"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
