"""What trained memories of images answer, kind by kind, and how often CREM's embedding finds the caption of an image.

    python benchmarks/image_memories.py --artifact runs/voco --artifact runs/crem --images 350

Each question has a scene of its own, from seeds that no training draws. An answer is right if greedy decoding gives all of
it. As controls: the memory of another image of the batch, and the text alone, whose memory is of an image without content.
"""

import argparse
from collections import defaultdict
from typing import Any

import torch

from laconic.artifact import Artifact
from laconic.fit.find import find_fit
from laconic.fit.image_memory import shown
from laconic.fit.memory import predicted_after
from laconic.loading import load
from laconic.tasks.scenes.captions import caption_of
from laconic.tasks.scenes.questions import QUESTIONS, make
from laconic.tasks.task import EVALUATION_SEED

KINDS = list(QUESTIONS)


def trained(file: str, model: Any, processor: Any) -> tuple[Any, Any]:
    """A fit with its trained network, and that network."""
    method = Artifact.load(file).method
    artifact = Artifact.find(method, model, file)
    cls: Any = find_fit(method)
    fit = cls(**artifact.settings)
    return fit, artifact.restore(fit.build(model, processor))


def right(fit: Any, reading: Any, prefix: Any) -> list[bool]:
    """Of each row, whether the answer comes out whole."""
    logits, wanted = predicted_after(fit.model, reading, prefix)
    counts = reading.learned[:, 1:].sum(1).tolist()
    rows = zip(logits.split(counts), wanted.split(counts), strict=True)
    return [bool((a.argmax(-1) == b).all()) for a, b in rows]


def found(fit: Any, readings: list[Any], captions: list[str]) -> tuple[float, float]:
    """How often the nearest caption is an image's own, and the nearest image a caption's, in percent."""
    opening = readings[0].opening
    images = torch.cat([fit.chorus_tokens.embedding(fit.model, opening, one.context) for one in readings])
    texts = fit.captions(opening, captions)
    likeness = images @ texts.T
    own = torch.arange(len(images))
    return tuple(100 * float((likeness.argmax(side) == own).float().mean()) for side in (1, 0))  # type: ignore[return-value]


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", action="append", required=True, help="a shipped name, file or folder; several times")
    parser.add_argument("--images", type=int, default=350, help="questions, each about a scene of its own")
    parser.add_argument("--searched", type=int, default=128, help="images and captions among which CREM searches")
    given = parser.parse_args()
    model, processor = load("testbed/vlm")
    model = model.float()
    batch = 2 * len(KINDS)
    numbers = range(EVALUATION_SEED, EVALUATION_SEED + given.images // batch * batch)
    kinds = [KINDS[number % len(KINDS)] for number in numbers]
    samples = [make(kind, number) for kind, number in zip(kinds, numbers, strict=True)]
    readings = [shown(model, processor, samples[at : at + batch]) for at in range(0, len(samples), batch)]
    print("| | keep | mean | " + " | ".join(KINDS) + " |")
    print("|---" * (len(KINDS) + 3) + "|")
    for file in given.artifact:
        fit, network = trained(file, model, processor)
        for keep in fit.keeps:
            answers: dict[str, list[bool]] = defaultdict(list)
            for reading in readings:
                prefix = network(model, reading.opening, reading.context, keep)
                answers[file] += right(fit, reading, prefix)
                moved = network(model, reading.opening, reading.context.roll(1, 0), keep)
                answers["another image's"] += right(fit, reading, moved)
                blank = network(model, reading.opening, torch.zeros_like(reading.context), keep)
                answers["of nothing"] += right(fit, reading, blank)
            for name, told in answers.items():
                shares = [_share([ok for ok, one in zip(told, kinds, strict=True) if one == kind]) for kind in KINDS]
                cells = " | ".join(f"{share:.0f}" for share in shares)
                print(f"| {name} | {keep} | {sum(shares) / len(shares):.0f} | {cells} |")
        if hasattr(fit, "chorus_tokens"):
            few = readings[: -(-given.searched // batch)]
            captions = [caption_of(number) for number in numbers[: len(few) * batch]]
            there, back = found(fit, few, captions)
            print(f"{file}: of {len(captions)}, {there:.0f} % of the captions and {back:.0f} % of the images are found")


def _share(told: list[bool]) -> float:
    return 100 * sum(told) / len(told)


if __name__ == "__main__":
    main()
