"""The `laconic` script, and `python -m laconic`: what Ctrl-C does while modules are imported, then the command line."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line. Nothing heavy is imported before Ctrl-C is in hand."""
    signal.signal(signal.SIGINT, interrupted)
    from laconic.cli import main as run

    run()


def interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: a `KeyboardInterrupt`, as usual, but not in the middle of an import.

    There, libraries print its traceback or swallow it, and there is nothing to put in order: one line, and out.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            sys.stderr.write("interrupted\n")
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
