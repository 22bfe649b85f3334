"""Pictures and video as input: files read strictly and within bounds, and prompts that show them.

A video, an animation and a folder of frames become pictures in time order; each frame is a picture of its own.
"""

from laconic.media.frames import Frame, load_frames
from laconic.media.gather import gather
from laconic.media.images import load_picture

__all__ = ["Frame", "gather", "load_frames", "load_picture"]
