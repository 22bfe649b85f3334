"""The server's settings: what `laconic serve` and its TOML file can say, checked before anything is started."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from laconic.errors import LaconicError, closest
from laconic.pretrained import cache_folder
from laconic.serve.compression import Compression
from laconic.serve.refusal import Refusal


class ConfigError(LaconicError, ValueError):
    """A setting of the server that cannot be."""


@dataclass(frozen=True)
class Server:
    """Section ``[server]``.

    Attributes:
        origins: web pages that may call; none: no CORS headers. `hosts`: names by which the server may be called; none: any
            on a loopback address that is no name of another site.
        drain_s: seconds for running answers after SIGTERM.
        lenient: fields that nobody knows are ignored and named in the answer, instead of refused.
        metrics_public: `/metrics` needs no key.
        insecure_no_auth: listen on other addresses than the loopback without keys.
        special_tokens: "allow" or "refuse" the model's control tokens in the text of messages.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    drain_s: float = 30.0
    lenient: bool = False
    metrics_public: bool = False
    insecure_no_auth: bool = False
    allow_download: bool = False
    special_tokens: str = "allow"


@dataclass(frozen=True)
class Model:
    """A section ``[[model]]``.

    Attributes:
        name: how requests call it. `path`: what `laconic.load` takes; default: the name.
        default_preset: compresses contexts that do not say how. `allowed_methods`: empty: all.
        max_context: tokens; default: what the model's configuration says. `threads`: of torch; default: torch's choice.
        max_batch: rows that are decoded together. `max_queue`, `max_queue_tokens`: what may wait.
    """

    name: str
    path: str = ""
    dtype: str = "auto"
    device: str | None = None
    default_preset: str | None = None
    max_context: int | None = None
    threads: int | None = None
    max_batch: int = 4
    max_queue: int = 16
    max_queue_tokens: int = 200_000
    allowed_methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Section ``[limits]``: bytes, seconds, and numbers per key."""

    deadline_s: float = 120.0
    overdue_s: float = 30.0
    json_bytes: int = 4 * 2**20
    multipart_bytes: int = 16 * 2**20
    body_s: float = 30.0
    keep_alive_s: float = 15.0
    first_byte_s: float = 2.0
    batch_wait_s: float = 0.005
    undelivered: int = 256
    max_inflight: int = 32
    quota_bytes: int = 2_000_000_000
    quota_contexts: int = 1000
    quota_pinned_bytes: int = 1_000_000_000
    quota_builds: int = 4


@dataclass(frozen=True)
class KeyLimits:
    """A section ``[key.NAME]``: what differs from `Limits` for one key. `models`: empty: all."""

    models: tuple[str, ...] = ()
    quota_bytes: int | None = None
    max_inflight: int | None = None


@dataclass(frozen=True)
class StoreSettings:
    """Section ``[store]``.

    Attributes:
        min_free: bytes that stay free on the disk. `memory_bytes`: contexts in a worker's memory.
        shared: other servers write into the folder, too; what they make and change is looked for there.
    """

    dir: str = ""
    min_free: int = 2**30
    default_ttl: int = 3600
    max_ttl: int = 86_400
    memory_bytes: int = 2 * 2**30
    shared: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.dir).expanduser() if self.dir else cache_folder() / "serve"


@dataclass(frozen=True)
class Config:
    """All settings."""

    models: tuple[Model, ...]
    presets: Mapping[str, Compression] = field(default_factory=dict)
    server: Server = Server()
    limits: Limits = Limits()
    store: StoreSettings = StoreSettings()
    keys: Mapping[str, KeyLimits] = field(default_factory=dict)
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.models:
            raise ConfigError("there is no model to serve; give --model, or a [[model]] section.")
        names = [model.name for model in self.models]
        for model in self.models:
            if names.count(model.name) > 1:
                raise ConfigError(f"two models are called {model.name!r}; give each a name of its own.")
            if not model.name.isprintable() or "@" in model.name or ":" in model.name:
                raise ConfigError(f"model name {model.name!r} holds ':' or '@', which stand before presets and contexts.")
            if model.default_preset is not None and model.default_preset not in self.presets:
                raise ConfigError(f"default_preset={model.default_preset!r}: {closest(model.default_preset, self.presets)}")
            if min(model.max_batch, model.max_queue, model.max_queue_tokens) < 1:
                raise ConfigError(f"model {model.name}: max_batch, max_queue and max_queue_tokens are at least 1.")
        if self.server.special_tokens not in ("allow", "refuse"):
            raise ConfigError(f'special_tokens={self.server.special_tokens!r}: write "allow" or "refuse".')
        loopback = self.server.host in ("127.0.0.1", "::1", "localhost")
        if not loopback and self.key_file is None and not self.server.insecure_no_auth:
            raise ConfigError(
                f"host {self.server.host} can be reached from other machines, and there are no keys; give --api-keys FILE "
                "(--new-key NAME makes a key), or --insecure-no-auth."
            )

    def limits_of(self, key: str) -> KeyLimits:
        own = self.keys.get(key, KeyLimits())
        return KeyLimits(
            own.models, own.quota_bytes or self.limits.quota_bytes, own.max_inflight or self.limits.max_inflight
        )


def from_toml(text: str) -> dict[str, Any]:
    """The arguments of `Config` that a file gives.

    Raises:
        ConfigError: it is no TOML, or holds a key that does not exist or a value of another kind.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"the configuration is not TOML: {error}.") from None
    known = ("server", "model", "preset", "limits", "key", "store")
    for name in table:
        if name not in known:
            raise ConfigError(f"there is no section [{name}]: {closest(name, known)}")
    models = table.get("model", [])
    if not isinstance(models, list):
        raise ConfigError("write models as [[model]], with two brackets.")
    try:
        presets = {
            name: Compression.of(given, f"preset.{name}", trusted=True) for name, given in _table(table, "preset").items()
        }
    except Refusal as error:
        raise ConfigError(error.message) from None
    found: dict[str, Any] = {"presets": presets}
    if models:
        found["models"] = tuple(section(Model, model, "[[model]]") for model in models)
    for name, cls in (("server", Server), ("limits", Limits), ("store", StoreSettings)):
        if name in table:
            found[name] = section(cls, table[name], f"[{name}]")
    found["keys"] = {name: section(KeyLimits, given, f"[key.{name}]") for name, given in _table(table, "key").items()}
    return found


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise ConfigError(f"write [{name}.NAME] sections.")
    return found


def section(cls: type[Any], given: Any, where: str) -> Any:
    """One section as its dataclass.

    Raises:
        ConfigError: a key that does not exist, one that is missing, or a value of another kind.
    """
    if not isinstance(given, dict):
        raise ConfigError(f"{where} must be a section.")
    hints = get_type_hints(cls)
    values = {}
    for name, value in given.items():
        if name not in hints:
            raise ConfigError(f"{where} has no key {name!r}: {closest(name, hints)}")
        values[name] = _typed(hints[name], value, f"{where} {name}")
    missing = [f.name for f in fields(cls) if f.name == "name" and f.name not in values]
    if missing:
        raise ConfigError(f"{where} needs a {missing[0]}.")
    return cls(**values)


def _typed(hint: Any, value: Any, where: str) -> Any:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, list) and all(isinstance(x, str) for x in value):
            return tuple(value)
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return float(value)
        if kind in (int, float) and type(value) is kind and value >= 0:
            return value
        if kind in (str, bool) and type(value) is kind:
            return value
    raise ConfigError(f"{where} = {value!r} is not of the kind that belongs there.")
