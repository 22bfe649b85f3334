"""Figures as people read them."""

from __future__ import annotations

import re

import typer

_SIZES = {"": 1, "b": 1}
_SIZES |= {unit + "b": 1000**power for power, unit in enumerate("kmgt", 1)}
_SIZES |= {unit + "ib": 1024**power for power, unit in enumerate("kmgt", 1)}


def size(n: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"


def seconds(s: float) -> str:
    """Milliseconds, or seconds from ten on."""
    return f"{s:,.2f} s" if s >= 10 else f"{s * 1000:,.1f} ms"


def flops(n: float) -> str:
    """FLOPs with an SI prefix."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(n) < 1000:
            return f"{n:,.2f} {unit}FLOP".replace(".00 FLOP", " FLOP")
        n /= 1000
    return f"{n:,.1f} EFLOP"


def age(s: float) -> str:
    """Seconds as whole seconds, minutes, hours or days."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if s < most:
            return f"{s / length:,.0f} {unit}"
    return f"{s / 86_400:,.0f} days"


def bytes_of(text: str) -> int:
    """A number of bytes as it is written on a command line: 2000000, 2GB, 1.5 GiB.

    Raises:
        typer.BadParameter: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b|b?)", text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no number of bytes; write 2000000, 2GB or 500MiB.")
    return round(float(match[1]) * _SIZES[match[2]])
