"""How often the weights of trained visual compressors lead to the right answer, size by size, beside averages and random
tokens of the same number. Many questions about each image, laid out as in training, so it takes a minute.

    python benchmarks/visual_compressors.py --images 40
    python benchmarks/visual_compressors.py --images 40 --artifact runs/crosslmm --artifact runs/texthawk2

Scenes are drawn from strings that no training uses. An answer is right if greedy decoding gives all of it.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from laconic.artifact import Artifact
from laconic.fit.find import find_fit
from laconic.fit.images import conversations
from laconic.fit.losses import right as rows_right
from laconic.fit.visual import Asked, VisualFit
from laconic.loading import load
from laconic.stream.grids import averaged
from laconic.tasks.task import EVALUATION_SEED

QUESTIONS = 8
SHIPPED = "llava_mini-testbed-vlm"
SIZES = {"crosslmm": "sides", "hicom": "blocks", "llava_mini": "sides", "oryx": "regions", "texthawk2": "pools"}
"""The setting of each fit whose values one artifact serves."""
Reader = Callable[[Asked], Tensor]


class Chosen(random.Random):
    """Draws one value whatever is offered."""

    def __init__(self, value: Any):
        super().__init__(0)
        self.value = value

    def choice(self, seq: Any) -> Any:
        return self.value


class Plain(VisualFit):
    """The layout of training, with nothing trained."""

    method = "none"

    def network(self, model: Any) -> Any:
        return torch.nn.Identity()


def trained(file: str, model: Any, processor: Any) -> dict[str, Reader]:
    """A reader for each size that an artifact serves; with a second one where text can be left as it is."""
    method = Artifact.load(file).method
    artifact = Artifact.find(method, model, file)
    cls: Any = find_fit(method)
    fit = cls(**artifact.settings)
    fit.build(model, processor)
    fit.net, fusion = artifact.restore(fit.net), getattr(fit.net, "fusion", None)

    def read(size: Any, fused: bool) -> Reader:
        def reader(asked: Asked) -> Tensor:
            if fusion is not None:
                fit.net.fusion = fusion if fused else None
            out: Tensor = fit.logits(asked, Chosen(size))
            return out

        return reader

    rows: dict[str, Reader] = {}
    for size in artifact.settings[SIZES[method]]:
        rows[f"{file}, {SIZES[method]} {size}"] = read(size, fused=True)
        if fusion is not None:
            rows[f"the same without fusion, {size}"] = read(size, fused=False)
    return rows


def mean(fit: VisualFit, side: int) -> Reader:
    """Averages on a grid of side x side."""

    def read(asked: Asked) -> Tensor:
        each = len(asked.ids) // len(asked.features)
        grids = asked.features.unflatten(1, (fit.side, fit.side))
        soft = torch.stack([averaged(x, side, side) for x in grids])
        return fit.answered(asked, soft.repeat_interleave(each, 0), fit.words(asked))

    return read


def some(fit: VisualFit, count: int) -> Reader:
    """Tokens drawn at random, the same ones of every image."""

    def read(asked: Asked) -> Tensor:
        each, at = len(asked.ids) // len(asked.features), sorted(random.Random(0).sample(range(fit.side**2), count))
        return fit.answered(asked, asked.features[:, at].repeat_interleave(each, 0), fit.words(asked))

    return read


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="scenes, with eight questions each at most")
    parser.add_argument("--artifact", action="append", help=f"a shipped name, file or folder; several times ({SHIPPED})")
    given = parser.parse_args()
    model, processor = load("testbed/vlm")
    model = model.float()
    fit = Plain(images=4, questions=QUESTIONS)
    fit.build(model, processor)
    fit.shown = conversations("", EVALUATION_SEED, QUESTIONS)
    rows: dict[str, Reader] = {"the whole image": some(fit, fit.side**2)}
    for file in given.artifact or [SHIPPED]:
        rows |= trained(file, model, processor)
    rows |= {f"averages, {side**2}": mean(fit, side) for side in (1, 2, 3, 4, 6)}
    rows |= {f"random, {count}": some(fit, count) for count in (16, 36)}
    right: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in rows}
    tokens = dict.fromkeys(rows, 0)
    for number in range(given.images // fit.images):
        asked = fit.asked(number)
        about = [fit.shown(number * fit.images + i) for i in range(fit.images)]
        each = min(map(len, about))
        kinds = [one.task for samples in about for one in samples[:each]]
        for name, read in rows.items():
            logits = read(asked)
            tokens[name] = fit.side**2 - asked.ids.shape[1] + logits.shape[1]
            wanted = asked.labels[:, -logits.shape[1] :][:, 1:]
            whole = rows_right(logits, wanted).tolist()
            for kind, answer in zip(kinds, whole, strict=True):
                right[name][kind].append(answer)
    order = sorted(right["the whole image"])
    asked_of = {kind: len(right["the whole image"][kind]) for kind in order}
    print("| | visual tokens | mean | " + " | ".join(f"{kind} ({asked_of[kind]})" for kind in order) + " |")
    print("|---" * (len(order) + 3) + "|")
    for name, found in right.items():
        shares = [100 * sum(found[kind]) / len(found[kind]) for kind in order]
        line = " | ".join(f"{share:.0f}" for share in shares)
        print(f"| {name} | {tokens[name]} | {sum(shares) / len(shares):.0f} | {line} |")


if __name__ == "__main__":
    main()
