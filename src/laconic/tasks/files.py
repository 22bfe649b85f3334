"""Tasks whose samples come from files: what they share, and how text files are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from laconic.errors import LaconicError
from laconic.tasks.task import Sample, Task, digest


class FormatError(LaconicError, ValueError):
    """Files that are not laid out as their task requires."""


@dataclass(frozen=True)
class FileTask(Task):
    """Samples that are read once, by `opened`, and held from then on.

    Args:
        held: the samples that were read.
    """

    held: tuple[Sample, ...] | None = field(default=None, kw_only=True)

    from_files: ClassVar[bool] = True

    @property
    def first(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return len(self._samples)

    @cached_property
    def data(self) -> str:
        return digest(self._samples)

    @property
    def _samples(self) -> tuple[Sample, ...]:
        if self.held is None:
            raise FormatError(f"{self.name} is read from files; call opened(folder=...) first.")
        return self.held

    def sample(self, number: int) -> Sample:
        return self._samples[number]


def lines_of(path: Path) -> list[str]:
    """The lines of a UTF-8 file, a BOM dropped; other line breaks than the newline may stand in a line.

    Raises:
        FormatError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}.") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.") from error
