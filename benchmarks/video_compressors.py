"""How often trained weights of `videostreaming`, `tempo` or `pvc` lead to the right answer about clips that no training
drew, beside their own ablations and whole frames of at most the same number of tokens (or one frame).

    python benchmarks/video_compressors.py videostreaming --model MODEL --artifact FILE --clips 40

Many questions about each clip, laid out as in training. An answer is right if greedy decoding gives all of it. What another
training is needed for (memories that are not passed on, attention over time left out) is a table of its own: give its file.
"""

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from laconic.artifact import Artifact
from laconic.fit.losses import right as rows_right
from laconic.fit.video import Filmed, VideoFit
from laconic.loading import load
from laconic.media.sampling import middles
from laconic.methods.tokens.pvc.fit import PVCFit
from laconic.methods.tokens.tempo.fit import TempoFit
from laconic.methods.tokens.tempo.network import likely
from laconic.methods.tokens.tempo.routing import KEPT, allocate, which
from laconic.methods.tokens.videostreaming.fit import VideoStreamingFit
from laconic.methods.tokens.videostreaming.network import relevance
from laconic.methods.tokens.videostreaming.selection import nearest
from laconic.ops.rows import gathered
from laconic.tasks.task import EVALUATION_SEED

Row = tuple[str, list[bool]]
"""A name and whether each question was answered rightly."""


def right(asked: Filmed, logits: Tensor) -> list[bool]:
    """Whether greedy decoding gives the whole answer of each question."""
    wanted = asked.labels[:, -logits.shape[1] :][:, 1:]
    return rows_right(logits, wanted).tolist()  # type: ignore[no-any-return]


def frames(fit: VideoFit, asked: Filmed, tokens: int) -> Row:
    """Whole frames in the middle of equal segments, as many as `tokens` hold and at least one."""
    each, size = len(asked.ids) // len(asked.features), asked.features[0, 0, ..., 0].numel()
    count = max(1, tokens // size)
    some = asked.features[:, middles(asked.features.shape[1], count)].flatten(1, 3)
    soft = some.repeat_interleave(each, 0)
    return f"whole frames, {count * size}", right(asked, fit.answered(asked, soft, fit.words(asked)))


def streaming(fit: VideoStreamingFit, asked: Filmed) -> Iterator[Row]:
    """Memories that the question picks, the last ones, some in equal steps, those that show what is asked about, all."""
    words, each = fit.words(asked), len(asked.ids) // len(asked.features)
    memories, codes = (x.repeat_interleave(each, 0) for x in fit.read(asked.features.float()))
    question = fit.net.question(memories[:, -1], gathered(words, asked.text), asked.text.sum(1))
    scores, placed = relevance(question, codes), fit.placed(memories)
    count, v = placed.shape[1], fit.select
    shows = asked.where.unflatten(1, (-1, fit.length)).any(-1)
    picks = {
        "selected": nearest(scores, v),
        "last": torch.arange(count - v, count),
        "in equal steps": torch.tensor(middles(count, v)),
        "those that show it (oracle)": nearest(scores + 10.0 * shows, v),
        "all memories": torch.arange(count),
    }
    for name, at in picks.items():
        at = at.expand(len(scores), -1)[..., None, None]
        soft = placed.gather(1, at.expand(-1, -1, *placed.shape[2:])).flatten(1, 2)
        yield f"{name}, {soft.shape[1]}", right(asked, fit.answered(asked, soft, words))
    yield frames(fit, asked, v * placed.shape[2])


def routed(scores: Tensor, budget: int, most: int, kept: str, q: int) -> list[tuple[int, Any]]:
    """How many notes of each segment question `q` reads, and which."""
    return [(k, kept) for k in allocate(scores[q], budget, 1, most)]


def notes(fit: TempoFit, asked: Filmed) -> Iterator[Row]:
    """Notes from the head, the tail or anywhere, routed or not, half of all in each case; and whether scores find what is
    asked about, as the share of pairs of segments in the right order."""
    words, each = fit.words(asked), len(asked.ids) // len(asked.features)
    made, answers = fit.read(asked, words, each, fit.notes)
    scores, (_, count, most, _) = likely(answers), made.shape
    budget, window = count * most // 2, fit.window
    times = [fit.net.time(i * window, (i + 1) * window)[None] for i in range(count)]
    shows = asked.where.unflatten(1, (-1, window)).any(-1)
    ways: dict[str, Callable[[int], list[tuple[int, Any]]]] = {
        **{
            f"{kept}, routed": lambda q, kept=kept: [(k, kept) for k in allocate(scores[q], budget, 1, most)]
            for kept in KEPT
        },
        "head, the same for all": lambda q: [(budget // count, "head")] * count,
        "all notes": lambda q: [(most, "head")] * count,
    }
    for name, way in ways.items():
        found = []
        for q in range(len(scores)):
            parts = [torch.cat([times[i], made[q, i, which(k, most, kept, i)]]) for i, (k, kept) in enumerate(way(q))]
            one = replace(asked, **{x: getattr(asked, x)[q : q + 1] for x in ("ids", "mask", "labels", "image", "closing")})
            found += right(one, fit.answered(one, torch.cat(parts)[None], words[q : q + 1]))
        yield name, found
    yield frames(fit, asked, budget + count)
    pairs = [float(hit > miss) for s, m in zip(scores, shows, strict=True) for hit in s[m] for miss in s[~m]]
    yield "pairs of segments in the right order (AUC)", [pair > 0 for pair in pairs]


def progressive(fit: PVCFit, asked: Filmed) -> Iterator[Row]:
    """Tokens of every block that was trained."""
    words, each = fit.words(asked), len(asked.ids) // len(asked.features)
    for block in fit.blocks:
        tokens, _ = fit.net(fit.tower, asked.states[fit.net.first], block)
        soft = tokens.flatten(1, 2).repeat_interleave(each, 0)
        yield f"blocks of {block}, {soft.shape[1]}", right(asked, fit.answered(asked, soft, words))
    yield frames(fit, asked, soft.shape[1])


def cell(answers: list[bool]) -> str:
    """The share that is right, in percent, and of how many."""
    return f"{100 * sum(answers) / len(answers):.0f} ({len(answers)})" if answers else ""


FITS: dict[str, tuple[type[VideoFit], Callable[[Any, Filmed], Iterator[Row]]]] = {
    "videostreaming": (VideoStreamingFit, streaming),
    "tempo": (TempoFit, notes),
    "pvc": (PVCFit, progressive),
}


@torch.inference_mode()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=FITS)
    parser.add_argument("--model", default="testbed/video")
    parser.add_argument("--artifact", help="file of the weights; none: the shipped ones")
    parser.add_argument("--clips", type=int, default=40, help="with eight questions each at most")
    parser.add_argument("--frames", type=int, default=16)
    args = parser.parse_args()
    model, reader = load(args.model)
    model = model.float()
    artifact = Artifact.find(args.method, model, args.artifact)
    cls, read = FITS[args.method]
    fit: Any = cls(**{**artifact.settings, "frames": (args.frames,), "images": 4, "questions": 8, "seed": 0})
    fit.build(model, reader)
    fit.net = artifact.restore(fit.net)
    found: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for number in range(args.clips // fit.images):
        rng = random.Random(f"video-compressors-{EVALUATION_SEED + number}")
        sets = {"": VideoFit.drawn(fit, rng)}
        if isinstance(fit, PVCFit):
            sets |= {f"a still image shown {n} times: ": fit.still(random.Random(f"still-{number}"), n) for n in fit.repeats}
        for label, clips in sets.items():
            each = min(len(clip.questions) for clip in clips)
            kinds = [question.kind for clip in clips for question in clip.questions[:each]]
            for name, answers in read(fit, fit.filmed(clips)):
                paired = kinds if len(kinds) == len(answers) else [""] * len(answers)
                for kind, answer in zip(paired, answers, strict=True):
                    found[label + name][kind].append(answer)
    order = sorted({kind for rows in found.values() for kind in rows if kind})
    print("| read | all | " + " | ".join(order) + " |\n|---" + "|---" * (len(order) + 1) + "|")
    for name, rows in found.items():
        every = [answer for answers in rows.values() for answer in answers]
        cells = [
            f"{100 * sum(rows[kind]) / len(rows[kind]):.0f} ({len(rows[kind])})" if kind in rows else "" for kind in order
        ]
        print(f"| {name} | {100 * sum(every) / len(every):.1f} ({len(every)}) | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
