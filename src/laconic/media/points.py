"""Clouds of named points, such as the atoms of a molecule, and the XYZ files that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from laconic.atomic import replacing
from laconic.errors import MediaError


@dataclass(frozen=True)
class Points:
    """Points in space.

    Attributes:
        names: of each point's kind, such as its element [n]. `at`: where it is, fp32 [n, 3].

    Raises:
        MediaError: no points, as many names as points are not given, or a place that is no number.
    """

    names: tuple[str, ...]
    at: Tensor

    def __post_init__(self) -> None:
        if not self.names or self.at.shape != (len(self.names), 3) or not bool(self.at.isfinite().all()):
            raise MediaError(
                f"a cloud of {len(self.names)} names needs as many finite places [n, 3], and at least one; these are "
                f"{tuple(self.at.shape)}."
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """How many points there are."""
        return len(self)

    def save(self, path: str | Path) -> None:
        """Write an XYZ file, whole or not at all; its units are those of `at`."""
        lines = [f"{name} {x:.4f} {y:.4f} {z:.4f}" for name, (x, y, z) in zip(self.names, self.at.tolist(), strict=True)]
        with replacing(Path(path)) as unfinished:
            unfinished.write_text("\n".join([str(len(self)), "", *lines, ""]), encoding="utf-8")


def load_points(path: str | Path) -> Points:
    """The points of an XYZ file: their number, a comment, and a line "NAME x y z" for each.

    Raises:
        MediaError: no such file, or one that is not like that; the first line that is wrong is named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MediaError(f"cannot read the points {str(path)!r}: {error}.") from error
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise MediaError(f"{path} is no XYZ file: its first line must be the number of points, its second a comment.")
    count, rows = int(lines[0]), lines[2:]
    while rows and not rows[-1].strip():
        rows.pop()
    if len(rows) != count:
        raise MediaError(f"{path} says {count} points and has {len(rows)}; it is cut off, or holds several structures.")
    names, places = [], []
    for number, row in enumerate(rows, 3):
        try:
            name, *numbers = row.split()
            x, y, z = (float(number) for number in numbers[:3])
        except ValueError:
            raise MediaError(f"{path}, line {number}: {row!r} is not a name and three numbers.") from None
        names.append(name)
        places.append((x, y, z))
    return Points(tuple(names), torch.tensor(places, dtype=torch.float32))


def psnr(drawn: Points, wanted: Points) -> float:
    """Point-to-point PSNR (D1) of `drawn` in dB: the extent of `wanted` against the mean square distance to the nearest
    point, of the worse direction. Equal clouds: infinite; a single point has an extent of 1."""
    apart = torch.cdist(drawn.at.double(), wanted.at.double())
    error = max(float(apart.amin(1).square().mean()), float(apart.amin(0).square().mean()))
    extent = float((wanted.at.amax(0) - wanted.at.amin(0)).max()) or 1.0
    return float(10 * torch.log10(torch.tensor(extent**2, dtype=torch.float64) / error))
