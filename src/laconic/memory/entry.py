"""Entries of the segment store: their keys, what is known of each, and the record that says it on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from laconic.errors import StoreError

FORMAT = 1
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{7,79}")
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class DamagedError(StoreError):
    """An entry's file or record is truncated, altered, or belongs to another key."""


def segment_key(content: bytes, *, method: str, artifact: str, model: str) -> str:
    """The key of a memory: 52 letters and digits, the SHA-256 of all that it depends on.

    Args:
        content: what was read: text, or token ids, as bytes.
        method: with all of its parameters; `artifact`: of what it was trained or measured to do (empty: nothing);
            `model`: whose weights, precision and tokenizer it is for.
    """
    facts = {"content": hashlib.sha256(content).hexdigest(), "method": method, "artifact": artifact, "model": model}
    digest = hashlib.sha256(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode()).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def valid_key(key: str) -> bool:
    """Whether `key` may name an entry, and so a file."""
    return _KEY.fullmatch(key) is not None


def check_key(key: str) -> None:
    """Raise `StoreError` for what no entry can be called; nothing else becomes part of a path."""
    if not valid_key(key):
        raise StoreError(f"key={key!r}: a key has 8 to 80 of a-z, 0-9, _ and -, as `segment_key` makes it.")


def check_namespace(name: str) -> None:
    """Raise `StoreError` for what no namespace can be called."""
    if _NAMESPACE.fullmatch(name) is None:
        raise StoreError(f"namespace={name!r}: a namespace has 1 to 64 of a-z, 0-9, _ and -; use a hash of longer names.")


def check_facts(facts: Mapping[str, str]) -> None:
    """Raise `StoreError` unless names and values are texts."""
    for name, value in facts.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise StoreError(f"facts: {name!r}={value!r} is no text; write names and values as texts.")


@dataclass(frozen=True)
class Entry:
    """What the store knows of one memory.

    Attributes:
        key: its name.
        bytes: size of its file; `sha256`: of the whole file.
        created: when it was written, `expires`: when it is no longer served (None: never), `used`: when it was last asked
            for; seconds since 1970.
        pinned: it stays, whatever its age and the store's limit.
        facts: what its writer noted.
    """

    key: str
    bytes: int
    sha256: str
    created: float
    expires: float | None = None
    pinned: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    used: float = 0.0

    def expired(self, now: float) -> bool:
        """Whether its time is over at `now`; never of a pinned entry."""
        return not self.pinned and self.expires is not None and self.expires <= now


def record(entry: Entry) -> bytes:
    """`entry` as JSON of two lines; the first one is the checksum of the second."""
    facts = asdict(entry)
    del facts["used"]  # the file's modification time says that
    body = f'"format": {FORMAT}, "entry": {json.dumps(facts, sort_keys=True)}}}\n'.encode()
    return _seal(body) + body


def parsed(data: bytes, key: str, used: float) -> Entry:
    """The entry that `record` wrote under `key`.

    Raises:
        DamagedError: not a byte may differ from what was written.
        StoreError: a later version of laconic wrote it.
    """
    line, _, body = data.partition(b"\n")
    if line + b"\n" != _seal(body):
        raise DamagedError(f"the record of {key} is truncated or was altered; {advice(key)}")
    facts: dict[str, Any] = json.loads(data)
    if facts["format"] != FORMAT:
        raise StoreError(f"{key} has format {facts['format']}, this version of laconic reads format {FORMAT}; update it.")
    entry = Entry(**facts["entry"], used=used)
    if entry.key != key:
        raise DamagedError(f"the record of {key} is that of {entry.key}; {advice(key)}")
    return entry


def advice(key: str) -> str:
    """What to do about a damaged entry."""
    return f"remove it with `laconic store rm {key}`, and it is made again when it is next needed."


def _seal(body: bytes) -> bytes:
    return b'{"sha256": "%s",\n' % hashlib.sha256(body).hexdigest().encode()
