"""Methods that want a video shown in a way of their own, such as with one more image that is made of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from laconic.media.frames import Frame


@runtime_checkable
class ArrangesFrames(Protocol):
    """A method with a say in what images a prompt has."""

    def arrange(self, stills: Sequence[Frame], frames: Sequence[Frame], side: int | None) -> list[Frame]:
        """The images of a prompt in their order.

        Args:
            stills: images beside the video. `frames`: of the video, at least one, in time.
            side: pixels along each side of what the model's encoder sees; None if it takes images of any size.
        """
        ...


def arranges(methods: Sequence[Any]) -> bool:
    """Whether one of these methods has a say in how a video is shown."""
    return any(isinstance(method, ArrangesFrames) for method in methods)


def arranged(shown: Sequence[Frame], stills: int, methods: Sequence[Any], side: int | None) -> list[Frame]:
    """What a prompt shows for these methods: `shown` as it is, unless one of them arranges the frames of a video.

    Args:
        stills: how many of `shown`, the first ones, are not frames of the video.
        side: see `ArrangesFrames`.
    """
    for method in methods:
        if isinstance(method, ArrangesFrames) and len(shown) > stills:
            return method.arrange(shown[:stills], shown[stills:], side)
    return list(shown)
