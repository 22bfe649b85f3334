"""Public benchmarks over images in their own file formats: prompts and scores as the official scripts have them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from laconic.bench.store import Row
from laconic.tasks.public import gqa, mmbench, mme, pope, scienceqa, textvqa
from laconic.tasks.public.base import Benchmark, FormatError
from laconic.tasks.sample import Judged, Suite, digest

__all__ = ["PUBLIC", "FormatError", "official", "suite"]

PUBLIC: dict[str, Benchmark] = {
    found.name: found
    for found in (
        mme.MME,
        pope.POPE,
        gqa.GQA,
        scienceqa.SCIENCEQA,
        textvqa.TEXTVQA,
        mmbench.MMBENCH,
    )
}


def suite(name: str, folder: Path) -> Suite:
    """The samples of benchmark `name` in `folder`.

    Raises:
        FormatError: the folder does not hold what the benchmark's layout says.
    """
    benchmark, folder = PUBLIC[name], folder.expanduser()
    if not folder.is_dir():
        raise FormatError(f"{folder} is no folder; give the one that {name} is unpacked in.")
    try:
        samples = benchmark.read(folder)
    except FormatError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(f"{folder} is not laid out as {name} is: {type(error).__name__}: {error}.") from error
    if not samples:
        raise FormatError(f"{folder} holds no sample of {name}.")
    return Suite(name, 0, len(samples), samples.__getitem__, benchmark.score, benchmark.new_tokens, digest(samples))


def official(task: str, rows: Iterable[Row]) -> dict[str, float]:
    """The benchmark's own figures from the rows of one method and budget; none for other tasks."""
    return PUBLIC[task].official([Judged.of(row) for row in rows]) if task in PUBLIC else {}
