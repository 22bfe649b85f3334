"""A server for tests: the real application over the loopback, its worker a thread of this process."""

import multiprocessing
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from laconic.serve.front.app import build
from laconic.serve.wire import Wire


class InThread:
    """The handle of a worker that runs in a thread."""

    pid = None

    def __init__(self, wire, target):
        self.wire, self._thread = wire, threading.Thread(target=target, daemon=True)
        self._thread.start()

    def is_alive(self):
        return self._thread.is_alive()

    def join(self, timeout=None):
        self._thread.join(timeout)

    def kill(self):
        self.wire.close()


def in_thread(serve):
    """A `launch` whose worker is ``serve(wire, settings)``, run in a thread."""

    def launch(settings):
        ours, theirs = multiprocessing.Pipe()
        wire = Wire(theirs)
        return Wire(ours), InThread(wire, lambda: serve(wire, settings))

    return launch


def real_worker(wire, settings):
    """What the worker's process does."""
    from laconic.serve.worker.desk import Desk
    from laconic.serve.worker.process import serve

    try:
        desk = Desk(wire, settings)
    except Exception as error:
        wire.send({"event": "unfit", "message": repr(error)})
        wire.close()
        raise
    serve(wire, desk, lambda: None)


@contextmanager
def running(config, launch, log=None):
    """A server -> (its address, its `House`), ready."""
    records = [] if log is None else log
    app, house = build(config, launch, records.append)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        while httpx.get(f"{address}/readyz", timeout=60).status_code != 200:
            troubles = [scheduler.backend.trouble for scheduler in house.schedulers.values()]
            assert not any(troubles), troubles
            time.sleep(0.05)
        yield address, house
    finally:
        server.should_exit = True
        thread.join(20)
