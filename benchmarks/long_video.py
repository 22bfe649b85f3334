"""What methods that read videos piece by piece hold of two hours at a frame a second, while they read them.

    python benchmarks/long_video.py --model testbed/video --frames 7200

Weights are fresh: what is held does not depend on them. The encoder is left out, frames are noise in the shape of what it
returns. "Held" is every number of the film in MiB, "peak" that of the whole process since the film began, both after each
quarter.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from laconic.families.vision import vision_family_of
from laconic.families.vision.frames import encode_frames
from laconic.loading import load
from laconic.measure.memory import Memory
from laconic.methods.tokens.pvc.film import SeenFilm
from laconic.methods.tokens.pvc.network import Progressive
from laconic.methods.tokens.tempo.film import NotedFilm
from laconic.methods.tokens.tempo.network import Notes
from laconic.methods.tokens.videostreaming.film import StreamedFilm
from laconic.methods.tokens.videostreaming.network import Streaming
from laconic.stream.film import Film

AT_ONCE = 16
MIB = 2**20


def held(film: Film) -> int:
    """Bytes of all tensors of a video; a view counts with all that it keeps alive."""
    waiting, total = [value for name, value in vars(film).items() if name not in ("net", "tower", "question")], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            total += one.untyped_storage().nbytes()
        elif isinstance(one, (list, tuple)):
            waiting += one
    return total


def films(model: PreTrainedModel, question: Tensor) -> dict[str, Callable[[], Film]]:
    """A new video of each method, at sizes that suit the testbed."""
    tower: Any = vision_family_of(model).tower(model)
    return {
        "videostreaming": lambda: StreamedFilm(Streaming(model, 4, 4).eval(), 4, 4, question),
        "tempo": lambda: NotedFilm(Notes(model, 4, 16).eval(), 8, 4, 4096, question),
        "pvc": lambda: SeenFilm(Progressive(model, 2, (3,), 64, "causal").eval(), tower, 3, 64),
    }


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed/video")
    parser.add_argument("--frames", type=int, default=7200)
    args = parser.parse_args()
    model, _ = load(args.model)
    side = vision_family_of(model).image_side(model)
    seen = encode_frames(model, torch.randn(1, AT_ONCE, 3, side, side))  # type: ignore[arg-type]
    tokens, states = seen.tokens[0], [x[0] for x in seen.states]
    quarter = args.frames // 4
    print("| method | frames read | held, MiB | peak, MiB | tokens for the decoder |\n|---|---|---|---|---|")
    for name, begin in films(model, torch.randn(12, tokens.shape[-1])).items():
        torch.manual_seed(0)
        film, memory = begin(), Memory()
        for frame in range(AT_ONCE, 4 * quarter + 1, AT_ONCE):
            film.add(torch.randn_like(tokens), [torch.randn_like(x) for x in states])
            if frame % quarter < AT_ONCE:
                soft = len(film.soft())
                print(f"| {name} | {frame} | {held(film) / MIB:.2f} | {memory.peak() / MIB:.0f} | {soft} |", flush=True)


if __name__ == "__main__":
    main()
