"""How often the shipped weights of a trained visual compressor lead to the right answer, size by size, beside averages and
random tokens of the same number. Many questions about each image, laid out as in training, so it takes a minute.

    python benchmarks/visual_compressors.py --images 40

Scenes are drawn from strings that no training uses. An answer is right if greedy decoding gives all of it.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from laconic.artifact import Artifact
from laconic.fit.images import conversations
from laconic.fit.text import IGNORED
from laconic.fit.visual import Asked, gathered, scattered
from laconic.loading import load
from laconic.methods.tokens.llava_mini.fit import LlavaMiniFit
from laconic.methods.tokens.llava_mini.network import load as load_mini
from laconic.stream.grids import averaged
from laconic.tasks.task import EVALUATION_SEED

QUESTIONS = 8
Reader = Callable[[LlavaMiniFit, Asked], Tensor]


def mini(side: int, fused: bool = True) -> Reader:
    """Side x side tokens; with the text as it is if not `fused`."""

    def read(fit: LlavaMiniFit, asked: Asked) -> Tensor:
        words, each = fit.words(asked), len(asked.ids) // len(asked.features)
        if fused:
            words = scattered(words, asked.text, fit.net.fused(asked.features, gathered(words, asked.text)))
        return fit.answered(asked, fit.net.compressed(asked.features, side).repeat_interleave(each, 0), words)

    return read


def mean(side: int) -> Reader:
    """Averages on a grid of side x side."""

    def read(fit: LlavaMiniFit, asked: Asked) -> Tensor:
        each = len(asked.ids) // len(asked.features)
        grids = asked.features.unflatten(1, (fit.side, fit.side))
        return fit.answered(
            asked, torch.stack([averaged(x, side, side) for x in grids]).repeat_interleave(each, 0), fit.words(asked)
        )

    return read


def some(count: int) -> Reader:
    """Tokens drawn at random, the same ones of every image."""

    def read(fit: LlavaMiniFit, asked: Asked) -> Tensor:
        each, at = len(asked.ids) // len(asked.features), sorted(random.Random(0).sample(range(fit.side**2), count))
        return fit.answered(asked, asked.features[:, at].repeat_interleave(each, 0), fit.words(asked))

    return read


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="scenes, with eight questions each at most")
    images = parser.parse_args().images
    model, processor = load("testbed/vlm")
    model = model.float()
    fit = LlavaMiniFit(images=4, questions=QUESTIONS)
    fit.build(model, processor)
    fit.net = load_mini(Artifact.find("llava_mini", model, None), model)
    fit.shown = conversations("", EVALUATION_SEED, QUESTIONS)
    rows: dict[str, Reader] = {"the whole image": some(fit.side**2)}
    for side in (1, 2, 4):
        rows |= {f"llava_mini, {side**2}": mini(side), f"the same without fusion, {side**2}": mini(side, fused=False)}
        rows[f"averages, {side**2}"] = mean(side)
    rows |= {"random, 16": some(16), "random, 36": some(36), "averages, 36": mean(6)}
    right: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in rows}
    for number in range(images // fit.images):
        asked = fit.asked(number)
        about = [fit.shown(number * fit.images + i) for i in range(fit.images)]
        each = min(map(len, about))
        kinds = [one.task for samples in about for one in samples[:each]]
        for name, read in rows.items():
            logits = read(fit, asked)
            wanted = asked.labels[:, -logits.shape[1] :][:, 1:]
            whole = ((logits[:, :-1].argmax(-1) == wanted) | (wanted == IGNORED)).all(1).tolist()
            for kind, answer in zip(kinds, whole, strict=True):
                right[name][kind].append(answer)
    order = sorted(right["the whole image"])
    asked_of = {kind: len(right["the whole image"][kind]) for kind in order}
    print("| visual tokens | mean | " + " | ".join(f"{kind} ({asked_of[kind]})" for kind in order) + " |")
    print("|---" * (len(order) + 2) + "|")
    for name, found in right.items():
        shares = [100 * sum(found[kind]) / len(found[kind]) for kind in order]
        print(f"| {name} | {sum(shares) / len(shares):.0f} | " + " | ".join(f"{share:.0f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
