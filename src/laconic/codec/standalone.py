"""Methods whose network stands alone: trained beside no model, loaded when it is first needed, and no part of a session."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from laconic.artifact import Artifact
from laconic.errors import ArtifactError, SessionError
from laconic.method import Method
from laconic.seams import Seam


class StandaloneSeam(Seam):
    """Refuses to be opened: no model runs."""

    def install(self, restore: ExitStack) -> None:
        method = self.methods[0]
        raise SessionError(f"{method.name} {method.instead}")


@dataclass(kw_only=True)
class StandaloneMethod(Method):
    """A method with a network of its own. A subclass gives `build`, and `instead`: what a session says of it.

    Args:
        artifact: what `laconic fit NAME` wrote: a file, a shipped name, or a Hub id. None takes the shipped one.
    """

    artifact: str | None = None

    claims: ClassVar[frozenset[str]] = frozenset({"codec"})
    seams: ClassVar[tuple[type[Seam], ...]] = (StandaloneSeam,)
    default_keep: ClassVar[float | None] = 1.0
    instead: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loaded: tuple[nn.Module, str] | None = None

    def build(self, artifact: Artifact) -> nn.Module:
        """The network, untrained, as the artifact's facts describe it."""
        raise NotImplementedError(f"{type(self).__name__} must define build().")

    @property
    def network(self) -> Any:
        """The trained network, in eval mode.

        Raises:
            ArtifactError: there is none, or it belongs to another method.
        """
        return self._load()[0]

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact's content."""
        return self._load()[1]

    def _load(self) -> tuple[nn.Module, str]:
        if self._loaded is None:
            found = Artifact.load(self.artifact or self._shipped())
            if found.method != self.name:
                raise ArtifactError(f"the artifact {self.artifact!r} is for {found.method}, not for {self.name}.")
            self._loaded = found.restore(self.build(found)), found.digest
        return self._loaded

    def _shipped(self) -> str:
        names = Artifact.shipped(f"{self.name}-*")
        if not names:
            raise ArtifactError(
                f"{self.name} needs an artifact and none is shipped; make one with `laconic fit {self.name} --out FILE` "
                "and pass artifact=FILE."
            )
        return names[0]
