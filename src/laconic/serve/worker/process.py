"""The process of one model: one thread listens and prepares prompts, the main one runs the model."""

from __future__ import annotations

import gc
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from laconic.errors import LaconicError
from laconic.serve.refusal import Refusal
from laconic.serve.wire import Wire

if TYPE_CHECKING:
    from laconic.serve.worker.desk import Desk


def run(connection: Connection, settings: Mapping[str, Any]) -> None:
    """Serve one model until the other end closes. The front imports this module, so what needs torch is imported here.

    Args:
        settings: see `laconic.serve.worker.desk.Desk`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the front says when it is over
    wire = Wire(connection)
    try:
        from transformers.utils import logging

        from laconic.serve.worker.desk import Desk

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        desk = Desk(wire, settings)
    except Exception as error:
        kind = "" if isinstance(error, LaconicError) else f"{type(error).__name__}: "  # ours say what to do by themselves
        wire.send({"event": "unfit", "message": f"{kind}{error}"})
        return
    gc.collect()
    gc.freeze()  # what was loaded stays; else full collections, which free dropped contexts, wait for a quarter more of it
    serve(wire, desk, lambda: os._exit(0))  # a pass that still runs is of use to nobody


def serve(wire: Wire, desk: Desk, closed: Callable[[], None]) -> None:
    """Do what comes over the wire.

    Args:
        closed: called when the other end is gone.
    """
    work: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while (message := wire.receive()) is not None:
                try:
                    if desk.hear(message):
                        work.put(message)
                except Refusal as error:
                    wire.send({"event": "refused", "id": message["id"], "error": error.facts()})
                except Exception as error:
                    _report(wire, message, error)
        except OSError:  # a front that was killed leaves messages, to which no answer can be sent
            pass
        finally:  # whatever ended it: without a listener nobody would end the worker
            closed()
            work.put(None)

    wire.send({"event": "ready", "facts": desk.facts})
    threading.Thread(target=listen, name="listener", daemon=True).start()
    while (message := work.get()) is not None:
        try:
            desk.work(message)
        except Exception as error:
            _report(wire, message, error)
        wire.send({"event": "idle"})


def _report(wire: Wire, message: Mapping[str, Any], error: Exception) -> None:
    """Say that something nobody foresaw went wrong. Its text may quote a prompt, so only its kind and place are told."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    print(f"worker: {type(error).__name__}{place}", file=sys.stderr, flush=True)
    refusal = Refusal(500, "internal_error", "the server failed to answer; its log says where.")
    for name in [job["id"] for job in message.get("jobs", ())] or [message.get("id")]:
        wire.send({"event": "failed", "id": name, "count": 0, "error": refusal.facts()})
