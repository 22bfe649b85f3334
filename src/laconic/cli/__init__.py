"""The command line: `laconic run | compress | pick | chat | cache | store | inspect | methods | bench | encode ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from laconic.cli import cache, store
from laconic.cli.bake import bake
from laconic.cli.bench import bench
from laconic.cli.chat import chat
from laconic.cli.codes import decode, encode
from laconic.cli.common import Group, utf8_streams
from laconic.cli.compress import compress
from laconic.cli.doctor import doctor
from laconic.cli.fit import deprecated, fit
from laconic.cli.generate import generate
from laconic.cli.inspect import inspect
from laconic.cli.methods import methods
from laconic.cli.pick import pick
from laconic.cli.playground import playground
from laconic.cli.run import run
from laconic.cli.serve import serve

app = typer.Typer(
    name="laconic",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from laconic import __version__

        typer.echo(f"laconic {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Shorten what a transformer remembers, and keep the answer.

    Every command takes --json. Exit status: 0 ok, 1 failed, 2 bad input, 130 interrupted.
    """


app.command()(run)
app.command()(compress)
app.command()(pick)
app.command()(chat)
app.command()(inspect)
app.command()(methods)
app.command()(bench)
app.command()(fit)
app.command()(bake)
app.command()(encode)
app.command()(decode)
app.command()(generate)
app.command()(serve)
app.command()(playground)
app.command()(doctor)
for verb in ("calibrate", "train"):
    app.command(verb, hidden=True)(deprecated(verb))
app.add_typer(cache.app, name="cache")
app.add_typer(store.app, name="store")


def main() -> None:
    """Entry point of the `laconic` script."""
    utf8_streams()
    app()
