"""The log: one line of JSON for every request, on stderr. No prompt, no answer, no file name, no header."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def write(record: Mapping[str, Any]) -> None:
    """One line."""
    status = record.get("status", 0)
    level = "error" if status >= 500 else "warning" if status >= 400 else "info"
    line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, **record}
    sys.stderr.write(json.dumps({name: value for name, value in line.items() if value is not None}) + "\n")
    sys.stderr.flush()
