"""Messages between the front and a worker: one JSON object each, over a private pair of sockets. Nothing is pickled."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from multiprocessing.connection import Connection
from typing import Any

Message = dict[str, Any]


class Wire:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, connection: Connection):
        self._connection, self._lock = connection, threading.Lock()

    def send(self, message: Message) -> None:
        """Raises `OSError` where the other end is closed."""
        data = json.dumps(message, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")
        with self._lock:
            self._connection.send_bytes(data)

    def receive(self) -> Message | None:
        """The next message; None when the other end is closed."""
        try:
            data = self._connection.recv_bytes()
        except (EOFError, OSError):
            return None
        message: Message = json.loads(data.decode("utf-8", "surrogatepass"))
        return message

    def close(self) -> None:
        """End it, from any thread: whoever waits for a message at either end gets None.

        The descriptor itself is closed with the last reference. Were it closed while a thread waits on it, the next pair of
        sockets could get its number, and that thread would go on with the messages of others.
        """
        with socket.socket(fileno=os.dup(self._connection.fileno())) as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
