"""Images and video as input: files read strictly and within limits, and prompts that show them.

A video, an animation and a folder of frames become images in time order; each frame is an image of its own.
"""

from laconic.media.frames import Frame, load_frames
from laconic.media.gather import gather
from laconic.media.images import load_image

__all__ = ["Frame", "gather", "load_frames", "load_image"]
