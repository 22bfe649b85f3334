"""API keys: a file of names and hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from laconic.serve.config import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Key:
    """Who calls. The name is also the tenant that owns contexts, so that a key can be replaced without losing them."""

    name: str
    admin: bool = False


ANYONE = Key("anyone")
"""Who calls a server without keys."""


class KeyRing:
    """The keys of a file with lines ``name:sha256-of-key[:admin]``; lines that begin with ``#`` are comments.

    Raises:
        ConfigError: the file cannot be read, others may read it, or a line has another form.
    """

    def __init__(self, path: Path):
        try:
            mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the keys in {path}: {error}.") from None
        if os.name == "posix" and mode & 0o077:
            raise ConfigError(f"{path} can be read by others; chmod 600 {path}.")
        self._keys: list[tuple[bytes, Key]] = []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, digest, admin = (*line.strip().split(":"), "", "")[:3]
            if not NAME.fullmatch(name) or not re.fullmatch(r"[0-9a-f]{64}", digest) or admin not in ("", "admin"):
                raise ConfigError(f"{path}, line {number}: write name:sha256-of-key or name:sha256-of-key:admin.")
            self._keys.append((digest.encode(), Key(name, bool(admin))))
        if not self._keys:
            raise ConfigError(f"{path} holds no key; --new-key NAME makes one.")

    def find(self, token: str) -> Key | None:
        """Whose key this is. Every entry is compared, so the time says nothing."""
        digest = hash_of(token).encode()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(digest, known):
                found = key
        return found


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def add_key(path: Path, name: str, admin: bool = False) -> str:
    """Make a key, add its hash to the file, and return the key itself, which is kept nowhere.

    Raises:
        ConfigError: a name that cannot be, or a file that cannot be written.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"key name {name!r}: write 1 to 64 letters, digits, dots, underscores or hyphens.")
    token = f"lac-{secrets.token_urlsafe(32)}"
    line = f"{name}:{hash_of(token)}{':admin' if admin else ''}\n"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(file, "a", encoding="utf-8") as out:
            out.write(line)
    except OSError as error:
        raise ConfigError(f"cannot write the key to {path}: {error}.") from None
    return token
