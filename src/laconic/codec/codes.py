"""Codes: what a codec made of one image, clip or sound, and the file that holds them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from laconic.atomic import replacing
from laconic.errors import BudgetError, CodesError

FORMAT = 1
KEY = "laconic_codes"
"""The key of the safetensors header that holds the facts, as JSON."""
_FACTS = ("codec", "artifact", "shape", "alphabet")


@dataclass(frozen=True)
class Codes:
    """The tokens of one medium, in the order in which the codec decodes them.

    Attributes:
        codec: name of the codec in the catalogue.
        artifact: SHA-256 of the weights that decode them.
        shape: of the medium, such as (height, width, channels).
        values: code numbers [n], int64, or vectors [n, d], floating point.
        alphabet: how many codes there are; None for vectors.
    """

    codec: str
    artifact: str
    shape: tuple[int, ...]
    values: Tensor = field(repr=False)
    alphabet: int | None = None

    def __post_init__(self) -> None:
        if self.alphabet is None:
            wrong = not (self.values.ndim == 2 and self.values.is_floating_point() and bool(self.values.isfinite().all()))
        else:
            wrong = self.values.ndim != 1 or self.values.dtype != torch.int64
            wrong = wrong or bool(((self.values < 0) | (self.values >= self.alphabet)).any())
        if wrong or not len(self.values):
            kind = "finite vectors [n, d]" if self.alphabet is None else f"whole numbers [n] from 0 to {self.alphabet - 1}"
            raise CodesError(
                f"the codes of {self.codec} must be one or more {kind}, not {tuple(self.values.shape)} "
                f"of {self.values.dtype}."
            )

    def __len__(self) -> int:
        return len(self.values)

    def __str__(self) -> str:
        return f"{len(self):,} tokens of {self.codec}, {self.bytes:,} bytes"

    @property
    def bits(self) -> float:
        """What the tokens carry at most: log2 of the alphabet each, or the bits of their numbers."""
        if self.alphabet is None:
            return self.values.numel() * self.values.element_size() * 8
        return len(self) * math.log2(self.alphabet)

    @property
    def bytes(self) -> int:
        """`bits` in whole bytes, without the header of a file."""
        return math.ceil(self.bits / 8)

    def first(self, tokens: int) -> Codes:
        """The first `tokens` of them.

        Raises:
            BudgetError: there are not so many.
        """
        if not 1 <= tokens <= len(self):
            raise BudgetError(f"tokens={tokens}: these codes have {len(self)}; ask for 1 to {len(self)}.")
        return replace(self, values=self.values[:tokens])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            CodesError: the file cannot be written.
        """
        stored = self.values if self.alphabet is None else self.values.to(torch.int32)
        tensors = {"values": stored.cpu().contiguous()}
        header = json.dumps({"format": FORMAT, **{name: getattr(self, name) for name in _FACTS}})
        try:
            with replacing(Path(path)) as unfinished:
                save_file(tensors, unfinished, {KEY: header, "sha256": _checksum(header, tensors["values"])})
        except (OSError, SafetensorError) as error:
            raise CodesError(f"cannot write the codes {str(path)!r}: {error}; choose another file.") from error

    @staticmethod
    def load(path: str | Path) -> Codes:
        """The codes in a file.

        Raises:
            CodesError: no such file, truncated, altered, or not codes.
        """
        facts, values = _read(Path(path))
        try:
            values = values if facts["alphabet"] is None else values.to(torch.int64)
            shape = tuple(int(side) for side in facts["shape"])
            return Codes(facts["codec"], facts["artifact"], shape, values, facts["alphabet"])
        except (KeyError, TypeError) as error:
            raise CodesError(f"{path} lacks a fact: {error!r}; encode the medium again.") from error


def _read(path: Path) -> tuple[dict[str, Any], Tensor]:
    """Facts and values of a file, its checksum checked."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            values = file.get_tensor("values") if names == ["values"] else None
    except FileNotFoundError:
        raise CodesError(f"{path} does not exist.") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise CodesError(f"{path} is truncated or holds no codes: {error}.") from error
    if KEY not in header or values is None:
        raise CodesError(f"{path} is a safetensors file, but not codes that `laconic encode` wrote.")
    if header.get("sha256") != _checksum(header[KEY], values):
        raise CodesError(f"{path} was altered: its checksum does not match; encode the medium again.")
    facts: dict[str, Any] = json.loads(header[KEY])
    if facts["format"] != FORMAT:
        raise CodesError(f"{path} has format {facts['format']}; this version of laconic reads format {FORMAT}.")
    return facts, values


def _checksum(header: str, values: Tensor) -> str:
    """SHA-256 of the facts and of the values with their type and shape."""
    digest = hashlib.sha256(f"{header}{values.dtype}{tuple(values.shape)}".encode())
    digest.update(values.contiguous().flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()
