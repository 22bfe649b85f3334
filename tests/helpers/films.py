"""Video files made by PyAV."""

from fractions import Fraction

import av
import numpy as np


def film(path, images, rotation=0, codec="mpeg4", rate=10, times=None, **options):
    """Writes `images` [h, w, 3] as a video; `times`: of each in milliseconds."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        if times:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(*values, height=48, width=64):
    return [np.full((height, width, 3), value, np.uint8) for value in values]
