"""Artifacts: what a method learned or measured about one model, as one safetensors file that says what it belongs to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from laconic.atomic import replacing
from laconic.errors import ArtifactError
from laconic.families.parameters import plain_parameters
from laconic.version import versions

FORMAT = 1
KEY = "laconic_artifact"
"""The key of the safetensors header that holds the facts, as JSON."""
SUFFIX = ".safetensors"
FILE = f"artifact{SUFFIX}"
"""Name of the artifact in a folder or in a repository on the Hub."""
SHIPPED = Path(__file__).parent / "artifacts"

Kind = Literal["measured", "trained", "published"]
M = TypeVar("M", bound=nn.Module)
_SAMPLE = 1024
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def fingerprint(model: nn.Module) -> str:
    """A hash of the weights: names, shapes, and up to 1,024 evenly spaced numbers of every tensor, rounded to bf16.

    The same weights loaded in another floating-point type or on another device have the same fingerprint; it reads a few
    pages of each tensor, so a model of any size takes a moment.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(plain_parameters(model), key=lambda pair: pair[0]):
        flat = weight.flatten()
        some = flat[:: max(1, flat.numel() // _SAMPLE)][:_SAMPLE].to("cpu", torch.bfloat16)
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(some.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:32]


def model_name(model: Any) -> str:
    """Where the weights of a transformers model came from, for display: its id, or the name of its folder or class."""
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return Path(name).name if Path(name).is_absolute() else str(name)


def numbers(module: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The state of `module` as tensors to save: on the CPU, floating-point ones as `dtype`, tied ones once."""
    state, seen = {}, set()
    for name, x in module.state_dict(keep_vars=True).items():
        if id(x) not in seen:
            seen.add(id(x))
            state[name] = x.detach().cpu().contiguous()
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in state.items()}


class Facts(dict[str, Any]):
    """What a method reads from an artifact, by name.

    Args:
        given: names and values. `method`: whose they are. `file`: where they were read, empty where nowhere.

    Raises:
        ArtifactError: by ``facts[name]``, where there is no such name.
    """

    def __init__(self, given: Mapping[str, Any], method: str, file: str = ""):
        super().__init__(given)
        self.method, self.file = method, file

    def __missing__(self, name: str) -> Any:
        where = f"the artifact {self.file!r}" if self.file else f"this artifact of {self.method}"
        raise ArtifactError(
            f"{where} lacks the fact {name!r}, which {self.method} reads (it has {', '.join(self) or 'none'}): another "
            f"version of laconic made it, or another program. Make one with {_command(self.method)}."
        )


@dataclass(frozen=True)
class Artifact:
    """What `laconic fit METHOD` writes.

    Attributes:
        method: name in the catalogue.
        kind: ``"measured"`` on the model, ``"trained"`` for it, or ``"published"`` by the method's authors.
        model: where the model's weights came from, for display; empty for a network that stands beside no model.
        fingerprint: of the model's weights, see `fingerprint`; None for published constants, which fit a model by its name,
            and for a network that stands alone.
        data: what the method reads, as JSON; see `Facts`.
        tensors: what the method reads, as numbers.
        settings: how it was made.
        versions: of laconic, torch and transformers.
        file: what it was loaded from, for messages; empty where it was not.
    """

    method: str
    kind: Kind
    model: str
    fingerprint: str | None
    data: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    file: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: choose one of {', '.join(get_args(Kind))}.")
        for name in ("data", "settings"):  # as JSON has it, so that what is loaded equals what was saved
            object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name), allow_nan=False)))
        object.__setattr__(self, "data", Facts(self.data, self.method, self.file))

    @classmethod
    def of(
        cls,
        method: str,
        kind: Kind,
        model: nn.Module | None,
        data: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """An artifact for `model`, a transformers model or None, with the versions that run now."""
        name, own = ("", None) if model is None else (model_name(model), fingerprint(model))
        return cls(method, kind, name, own, dict(data), dict(tensors or {}), dict(settings or {}), versions())

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            ArtifactError: the file cannot be written.
        """
        facts = {name: getattr(self, name) for name in _FACTS}
        facts = {"format": FORMAT, **facts, "sha256": _checksum(facts, self.tensors)}
        try:
            with replacing(Path(path)) as unfinished:
                save_file(self.tensors, unfinished, {KEY: json.dumps(facts)})
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"cannot write the artifact {str(path)!r}: {error}; choose another file.") from error

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all facts and tensors."""
        return _checksum({name: getattr(self, name) for name in _FACTS}, self.tensors)

    @classmethod
    def load(cls, given: str | Path) -> Artifact:
        """The artifact in a file, in a folder (as ``artifact.safetensors``), in a Hub repository, or of a shipped name.

        Raises:
            ArtifactError: there is none, it is damaged, or another version of laconic wrote it.
        """
        path = _locate(given)
        facts, tensors = _read(path, tensors=True)
        try:
            known = {name: facts[name] for name in _FACTS}
            if facts["sha256"] != _checksum(known, tensors):
                raise ArtifactError(
                    f"the artifact {str(given)!r} is damaged: its checksum does not match its content. Copy it again, or "
                    f"make it again with {_command(known['method'])}."
                )
            return cls(tensors=tensors, file=str(given), **known)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(f"{_none(given)} It lacks a fact: {error!r}.") from error

    @staticmethod
    def shipped(pattern: str = "*") -> list[str]:
        """Names of the artifacts that come with laconic and match a shell pattern, such as ``"METHOD-testbed-lm"``."""
        return sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}") if fnmatchcase(path.stem, pattern))

    @staticmethod
    def checksum(given: str | Path) -> str:
        """SHA-256 of the file that `given` means; see `load`.

        Raises:
            ArtifactError: there is none.
        """
        try:
            with _locate(given).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ArtifactError(f"the artifact {str(given)!r} cannot be read: {error}; give another file.") from error

    @classmethod
    def find(cls, method: str, model: nn.Module, given: str | None, instead: str = "") -> Artifact:
        """The artifact of `method` for `model`: the `given` one (see `load`), or the shipped one made for these weights.

        Args:
            instead: what else a user may do when there is none, for the message, such as ``"give heads="``.

        Raises:
            ArtifactError: there is none, or it belongs to another method or model.
        """
        if given is not None:
            found = cls.load(given)
            if found.method != method:
                raise ArtifactError(
                    f"the artifact {given!r} is for {found.method}, not for {method}; make one with {_command(method)}."
                )
            if found.fingerprint not in (None, fingerprint(model)):
                raise ArtifactError(
                    f"the artifact {given!r} was made for other weights ({found.model}); make one for this model with "
                    f"{_command(method)}."
                )
            return found
        own, names = fingerprint(model), cls.shipped(f"{method}-*")
        for name in names:
            facts, _ = _read(SHIPPED / f"{name}{SUFFIX}", tensors=False)
            if facts["method"] == method and facts["fingerprint"] == own:
                return cls.load(name)
        known = f" Shipped for other models: {', '.join(names)}." if names else ""
        raise ArtifactError(
            f"{method} needs an artifact for this model and none is shipped for its weights. Make one with "
            f"{_command(method)} and pass artifact=FILE{instead and f', or {instead}'}.{known}"
        )

    def restore(self, module: M) -> M:
        """`module` with the tensors in it, floating-point ones as fp32; frozen and in eval mode.

        Raises:
            ArtifactError: the tensors are not those of such a module.
        """
        if not self.tensors:
            raise ArtifactError(f"this artifact of {self.method} holds no tensors; make one with {_command(self.method)}.")
        state = {name: x.float() if x.is_floating_point() else x for name, x in self.tensors.items()}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ArtifactError(
                f"the tensors of this artifact do not fit {self.method}: {reason} Make one with {_command(self.method)}."
            ) from error
        return module.eval().requires_grad_(False)


_FACTS = ("method", "kind", "model", "fingerprint", "data", "settings", "versions")


def _command(method: str) -> str:
    """What makes an artifact."""
    return f"`laconic fit {method} --model MODEL --out FILE`"


def _checksum(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the facts and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, x in sorted(tensors.items()):
        digest.update(f"{name}{x.dtype}{tuple(x.shape)}".encode())
        digest.update(x.contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b"")
    return digest.hexdigest()


def _locate(given: str | Path) -> Path:
    """The file that `given` means; see `Artifact.load`."""
    text, path = str(given), Path(given).expanduser()
    if text in Artifact.shipped():
        return SHIPPED / f"{text}{SUFFIX}"
    if path.is_dir():
        if not (path / FILE).is_file():
            raise ArtifactError(f"the folder {text!r} holds no {FILE}; name the file itself, or run `laconic fit`.")
        return path / FILE
    near = get_close_matches(text, Artifact.shipped(), cutoff=0.8)
    if near and not path.exists():  # before the Hub is asked for it
        raise ArtifactError(f"no artifact is called {text!r}; did you mean {near[0]}?")
    if not path.exists() and path.suffix not in (SUFFIX, ".json") and _HUB_ID.fullmatch(text):
        return _download(text)
    return path


def _download(name: str) -> Path:
    """`FILE` of the Hub repository `name`, from the cache or the network."""
    from huggingface_hub import hf_hub_download  # only when a Hub id was asked for: it takes time to import

    try:
        return Path(hf_hub_download(name, FILE))
    except Exception as error:  # whatever the Hub's client raises: no network, no such repository, no such file, no access
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(
            f"there is no file {name!r} here, and {FILE} of the Hub repository of that name cannot be fetched: {reason} "
            f"Check the name and the connection, or give a file. Shipped: {', '.join(Artifact.shipped())}."
        ) from error


def _read(path: Path, tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and, if asked for, tensors of a file."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118 (no dict)
        if KEY not in header:
            raise ArtifactError(_old(path) if "laconic" in header else _none(path))
        facts = json.loads(header[KEY])
        if facts["format"] != FORMAT:
            raise ArtifactError(
                f"the artifact {str(path)!r} has format {facts['format']} and this laconic reads format {FORMAT}; update "
                "laconic."
            )
        return facts, found
    except FileNotFoundError:
        names = ", ".join(Artifact.shipped())
        raise ArtifactError(
            f"the artifact {str(path)!r} does not exist. Shipped: {names}. Others are made with `laconic fit METHOD`."
        ) from None
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        if _is_recipe(path):
            raise ArtifactError(_old(path)) from None
        raise ArtifactError(f"{_none(path)} Or it is damaged: {error}.") from error


def _is_recipe(path: Path) -> bool:
    """Whether a file is JSON as laconic 0.1 wrote it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"method", "fingerprint", "data"} <= found.keys()


def _none(path: str | Path) -> str:
    return f"{str(path)!r} is not an artifact written by `laconic fit`."


def _old(path: Path) -> str:
    """The message about a file of the formats before this one."""
    return f"{str(path)!r} was written by laconic 0.1; convert it with `laconic fit --convert {path} NEW{SUFFIX}`."
