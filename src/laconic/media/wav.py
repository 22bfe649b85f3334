"""Whether a WAV file is complete and agrees with itself: decoders take what bytes there are and believe any rate."""

from __future__ import annotations

from laconic.errors import MediaError

WAVES = (b"RIFF", b"RF64")
UNKNOWN = (0, 0xFFFFFFFF)
"""Lengths that programs write which do not know yet how much will follow."""
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def check_wav(data: bytes, name: object) -> None:
    """Refuse a WAV file whose end is missing, that holds no samples, or whose header says two different rates. Files of
    other formats pass.

    Raises:
        MediaError: one of these.
    """
    if data[:4] not in WAVES or data[8:12] != b"WAVE":
        return
    at, header = 12, b""
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"fmt ":
            header = data[at + 8 : at + 8 + length]
        if kind == b"data":
            _check_header(header, name)
            there = len(data) - at - 8
            if length not in UNKNOWN and length > there:
                raise MediaError(
                    f"{name} is cut off: its header announces {length:,} bytes of sound, and {there:,} are there. Copy or "
                    "download it again."
                )
            return
        at += 8 + length + length % 2
    raise MediaError(f"{name} is a WAV file without sound: it has no data chunk. Record or export it again.")


def _check_header(header: bytes, name: object) -> None:
    """The rate stands in a WAV header twice: as samples, and as bytes a second."""
    if len(header) < 16:
        raise MediaError(f"{name} is a WAV file whose fmt chunk is missing or too short. Export it again.")
    number = lambda first, size: int.from_bytes(header[first : first + size], "little")  # noqa: E731
    coding, channels, rate, a_second, block, bits = (number(*f) for f in ((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2)))
    if coding not in (PCM, FLOAT, EXTENSIBLE):
        return  # compressed codings count their bytes in other ways
    exact = rate * channels * -(-bits // 8)
    if block != channels * -(-bits // 8) or a_second != exact:
        raise MediaError(
            f"{name} contradicts itself: {rate} samples a second of {channels} x {bits} bits are {exact:,} bytes a second, "
            f"but its header says {a_second:,}. The rate cannot be trusted; export the file again."
        )
