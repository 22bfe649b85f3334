"""`laconic serve`: an OpenAI-compatible server of compressed contexts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from laconic.budget import BUDGETS
from laconic.cli import common
from laconic.cli.options import LOCAL, Json, Keep, ray_address
from laconic.method import check_name

if TYPE_CHECKING:
    from laconic.serve.compression import Compression
    from laconic.serve.config import Config

PRESET = "default"
"""What `--method` is called in requests."""


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="testbed/lm, smollm2, a folder, or a Hugging Face id; repeat to serve several."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Compresses contexts that do not say how: NAME or NAME:key=value.")
    ] = None,
    keep: Keep = None,
    preset: Annotated[
        list[str] | None,
        typer.Option("--preset", help="NAME=METHOD:key=value,..., for requests to name; repeatable."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file with all settings; options win over it.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Default: 8000; 0 takes a free one.")] = None,
    store: Annotated[Path | None, typer.Option("--store", help="Folder of contexts; default: in laconic's cache.")] = None,
    api_keys: Annotated[
        Path | None, typer.Option("--api-keys", "--api-key", help="File of keys, name:sha256-of-key[:admin] a line.")
    ] = None,
    new_key: Annotated[
        str | None, typer.Option("--new-key", help="Make a key of this name, add it to --api-keys, show it once, and leave.")
    ] = None,
    insecure_no_auth: Annotated[
        bool, typer.Option("--insecure-no-auth", help="Without keys on an address that others can reach.")
    ] = False,
    allow_download: Annotated[bool, typer.Option("--allow-download", help="Models may come from the Hub.")] = False,
    executor: Annotated[
        str,
        typer.Option(
            "--executor", help="local; ray: --replicas under Ray Serve; ray://auto or ray://HOST:PORT: on a cluster."
        ),
    ] = LOCAL,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Of --executor ray; they share the store.")] = 2,
    check: Annotated[bool, typer.Option("--check", help="Load the models, warm them up, and leave.")] = False,
    as_json: Json = False,
) -> None:
    """Serve a model over HTTP as OpenAI's API does, with contexts that are compressed once and asked often.

    Example: laconic serve --model smollm2 --method NAME --keep 0.25

    Then any OpenAI client works with base_url="http://127.0.0.1:8000/v1". docs/serving.md has the rest.
    """
    if new_key is not None:
        _new_key(api_keys, new_key, as_json)
        return
    try:
        from laconic.serve import run
    except ImportError as error:
        raise common.InputError(f"{error.name} is not installed; pip install 'laconic-transformers[serve]'.") from None
    server = {"host": host, "port": port}
    flags = {"insecure_no_auth": insecure_no_auth, "allow_download": allow_download}
    given = {name: value for name, value in server.items() if value is not None} | {n: True for n, v in flags.items() if v}
    settings = _settings(model or [], method, keep, preset or [], config, given, store, api_keys)
    said: list[str] = []
    if check:
        status = run.check(settings, said.append)
    elif executor == LOCAL:
        status = run.serve(settings, run.to_stderr)
    else:
        from laconic.serve.replicas import serve as replicated

        status = replicated(settings, replicas, ray_address(executor), run.to_stderr)
    if as_json:
        common.emit({"ok": status == common.OK, "models": said})
    else:
        for line in said:
            common.out().print(line, markup=False)
    raise typer.Exit(status)


def _new_key(path: Path | None, name: str, as_json: bool) -> None:
    from laconic.serve.keys import add_key

    if path is None:
        raise common.InputError("--new-key writes the key's hash into a file; give it as --api-keys FILE.")
    token = add_key(path.expanduser(), name)
    if as_json:
        common.emit({"name": name, "key": token})
    else:
        common.out().print(token, markup=False)
        common.err().print(f"shown this once; its hash is in {path}", markup=False)


def _settings(
    models: list[str],
    method: str | None,
    keep: float | None,
    presets: list[str],
    file: Path | None,
    server: dict[str, Any],
    store: Path | None,
    keys: Path | None,
) -> Config:
    from dataclasses import replace

    from laconic.serve.config import Config, ConfigError, Model, Server, StoreSettings, from_toml

    try:
        given: dict[str, Any] = {} if file is None else from_toml(file.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read --config {file}: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config {file} is not UTF-8.") from None
    named: dict[str, Compression] = {} if method is None else {PRESET: _preset(method, keep)}
    for one in presets:
        name, eq, spec = one.partition("=")
        if not eq or not name.strip():
            raise common.InputError(f"--preset {one!r}: write NAME=METHOD:key=value.")
        named[name.strip()] = _preset(spec, keep)
    given["presets"] = {**given.get("presets", {}), **named}
    if models:
        given["models"] = tuple(Model(name) for name in models)
    if method is not None:
        given["models"] = tuple(replace(one, default_preset=PRESET) for one in given.get("models", ()))
    given["server"] = replace(given.get("server", Server()), **server)
    if store is not None:
        given["store"] = replace(given.get("store", StoreSettings()), dir=str(store))
    if keys is not None:
        given["key_file"] = keys.expanduser()
    given.setdefault("models", ())
    return Config(**given)


def _preset(spec: str, keep: float | None) -> Compression:
    """A preset from a method's text, such as ``"NAME:keep=0.25,key=value"``."""
    from laconic.method import parameters_of
    from laconic.serve.compression import Compression

    name, _, rest = spec.partition(":")
    check_name(name.strip())
    given = parameters_of(spec, rest)
    budget: dict[str, Any] = {one: given.pop(one) for one in BUDGETS if one in given}
    protect = given.pop("protect", ())
    if not budget and keep is not None:
        budget = {"keep": keep}
    facts: dict[str, Any] = {"method": name.strip(), "parameters": given, "protect": protect, **budget}
    return Compression.of(facts, "preset", trusted=True)
