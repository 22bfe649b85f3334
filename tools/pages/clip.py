"""Film examples/clip.mp4, the video of the README's command: a clip of the testbed that no training has seen.

python -m tools.pages.clip
"""

from fractions import Fraction

import av

from laconic.tasks.video.clips import film
from laconic.tasks.video.questions import EVALUATION_SEED, pose
from tools.pages.parts import ROOT

FILE = ROOT / "examples" / "clip.mp4"
FRAMES = 16
RATE = 2
"""Frames a second."""
QUALITY = "8"
"""H.264's constant rate factor: nearly lossless, and colours at full resolution, since shapes are a few pixels wide."""


def main() -> None:
    """Write the video; print its question and the answer."""
    clip, question = pose("first", EVALUATION_SEED + 900_005, FRAMES)
    with av.open(str(FILE), "w") as out:
        stream = out.add_stream("libx264", rate=RATE, options={"crf": QUALITY, "threads": "1"})
        stream.width = stream.height = film(clip).shape[1]
        stream.pix_fmt, stream.time_base = "yuv444p", Fraction(1, RATE)
        for frame in film(clip):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    print(f"{FILE.name}: {question.text} {question.answer}")


if __name__ == "__main__":
    main()
