"""Small memory files and the keys they are stored under; no torch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from laconic.memory.store import segment_key


def key(name: object) -> str:
    """A key that belongs to `name`."""
    return segment_key(str(name).encode(), method="knorm:keep=0.5", artifact="", model="m")


def writer(seed: int = 0, numbers: int = 64) -> Callable[[Path], None]:
    """What writes a memory of so many fp32 numbers."""

    def write(path: Path) -> None:
        save_file({"x": np.random.default_rng(seed).standard_normal(numbers).astype(np.float32)}, path, {"seed": str(seed)})

    return write


def size(folder: Path, seed: int = 0, numbers: int = 64) -> int:
    """Bytes of the file that `writer` writes."""
    path = folder / "size"
    writer(seed, numbers)(path)
    found = path.stat().st_size
    path.unlink()
    return found
