"""What the disk refuses, as errors that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from laconic.errors import StoreError

READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space, or give a folder on another disk.",
    errno.EDQUOT: "The quota is used up: free some space, or give a folder on another disk.",
    **dict.fromkeys(READ_ONLY, "Give a folder that may be written to."),
}


@contextmanager
def clearly(what: str) -> Iterator[None]:
    """Turn errors of the disk, and of the library that writes memories to it, into `StoreError`: cannot `what`, and why."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "")
        raise StoreError(f"cannot {what}: {error}. {advice}".rstrip()) from error
    except SafetensorError as error:
        raise StoreError(f"cannot {what}: {error}.") from error
