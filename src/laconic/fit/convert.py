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
    """What a file of laconic 0.1 says, as an artifact; numbers stay bit for bit what they are.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        head, tensors = _read(Path(old))
        model, own, made = head.pop("model"), head.pop("fingerprint"), head.pop("made", {})
        method, versions = head.pop("method"), head.pop("versions", None)
        if tensors:  # settings and versions were inside of `made`, what the method reads beside it
            settings, versions = made.pop("settings", {}), made.pop("versions", {})
            return Artifact(method, "trained", model, own, head | made, tensors, settings, versions)
        if str(made.get("by", "")).startswith("laconic calibrate"):
            del made["by"]
        kind: Kind = "published" if own is None else "measured"
        return Artifact(method, kind, model, own, head["data"], {}, made, versions or {})
    except FileNotFoundError:
        raise ArtifactError(f"{str(old)!r} does not exist; name a file that laconic 0.1 wrote.") from None
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"{str(old)!r} is no recipe and no weights that laconic 0.1 wrote: {error!r}.") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8")), {}
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {})["laconic"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
