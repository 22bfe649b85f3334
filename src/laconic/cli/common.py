"""What all commands share: consoles, JSON on stdout, one-line errors with exit codes, text files."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from laconic.errors import (
    BudgetError,
    ConflictError,
    LaconicError,
    ProtectError,
    UnknownNameError,
    UnsupportedModelError,
)

SILENCE = 5.0
"""Seconds after which a command without a terminal says what it is doing."""
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_CLICK_ERROR: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class InputError(LaconicError, ValueError):
    """What the user gave cannot be used."""


def exit_code(error: BaseException) -> int:
    """2 for what the user can correct on the command line, 1 for the rest."""
    bad = BudgetError, ConflictError, ProtectError, UnknownNameError, UnsupportedModelError, ValueError
    return BAD_INPUT if isinstance(error, bad) else FAILED


class Group(TyperGroup):
    """Runs a command; an exception becomes one line on stderr and an exit code. `--debug` (anywhere) shows the traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        debug = "--debug" in args
        if debug:
            args = [a for a in args if a != "--debug"]
        ctx.obj = {"debug": debug}
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, _CLICK_ERROR):
            raise
        except KeyboardInterrupt:
            err().print("interrupted", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _close_stdout()
            raise typer.Exit(FAILED) from None
        except Exception as error:
            if ctx.obj["debug"]:
                raise
            complain(error)
            raise typer.Exit(exit_code(error)) from None


def _close_stdout() -> None:
    """Our stdout was closed by its reader: flush nothing more into it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(error: BaseException) -> None:
    """One clear line in red on stderr."""
    message = " ".join(str(error).split()) or type(error).__name__
    known = isinstance(error, (LaconicError, ValueError, OSError))
    name = "" if known else f"{type(error).__name__}: "
    hint = "" if known else " (--debug shows the traceback)"
    err().print(Text(f"error: {name}{message}{hint}", style="bold red"), soft_wrap=True)


def out() -> Console:
    """Console on stdout; plain when that is no terminal."""
    return Console(highlight=False)


def err() -> Console:
    """Console on stderr: errors, warnings, spinners."""
    return Console(stderr=True, highlight=False)


def emit(value: Any) -> None:
    """JSON, the only thing on stdout of a command with ``--json``. What JSON does not know is written as text."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str, allow_nan=False) + "\n")


@contextmanager
def told_late(message: str) -> Iterator[None]:
    """A line on stderr if something has run for `SILENCE`; for where nothing can move on a terminal."""
    timer = threading.Timer(SILENCE, err().print, [f"{message} ..."], {"markup": False, "soft_wrap": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def spinner(message: str) -> Iterator[None]:
    """A spinner on stderr, with the time since, while something runs; elsewhere than on a terminal a line, if it is long."""
    console = err()
    if not console.is_terminal:
        with told_late(message):
            yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(message, total=None)
        yield


def quiet() -> None:
    """Silence the logs and progress bars of transformers and huggingface_hub."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def utf8_streams() -> None:
    """stdout and stderr speak UTF-8 wherever we run; text that came in as UTF-8 goes out as UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if (getattr(stream, "encoding", "") or "").lower().replace("-", "") != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


def read_text(path: str, option: str = "--context") -> str:
    """A UTF-8 file (a BOM is dropped), or stdin for ``"-"``. `option` is what names it on the command line.

    Raises:
        PromptError: the file is missing, a folder, unreadable, or not UTF-8; the message names the byte.
    """
    from laconic.prompts import files

    if path == "-":
        return files.decoded(sys.stdin.buffer.read(), "stdin")
    return files.read_text(Path(path), f"{option} {path}")


def clean(text: str) -> str:
    """Text for a terminal: control characters that a model might repeat from a hostile context do nothing."""
    return "".join(c if c in "\n\t" or (c.isprintable() or ord(c) > 0x9F) else "\ufffd" for c in text)
