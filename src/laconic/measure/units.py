"""Figures as people read them."""

from __future__ import annotations


def size(n: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n) < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"


def seconds(s: float) -> str:
    """Milliseconds, or seconds from one on."""
    return f"{s:,.2f} s" if s >= 1 else f"{s * 1000:,.1f} ms"


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
