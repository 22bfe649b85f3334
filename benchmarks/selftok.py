"""Selftok: what its order is worth. Visible tokens by time, quality of what is decoded, and how predictable codes are.

    python benchmarks/selftok.py --method selftok:artifact=FILE --plain selftok:artifact=FILE --out FILE --figure FILE

`--plain` is the same training with `--set schedule=all`. Small scenes of the evaluation's numbers, and those of a
training for the language model. PSNR is of eight bits and a mean over images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import laconic
from laconic.codec.ema_codebook import perplexity
from laconic.codec.images import pixels, psnr, shown
from laconic.methods.codecs.selftok.next_code import next_code_perplexity
from laconic.methods.codecs.selftok.schedule import Schedule
from laconic.tasks.scenes.small import small_scenes
from laconic.tasks.task import EVALUATION_SEED


def visibility(schedule: Schedule, steps: int) -> dict[str, int]:
    """Visible tokens at each step of Euler's method, by time."""
    times = torch.linspace(1, 0, steps + 1)[:-1]
    return {f"{t:.2f}": n for t, n in zip(times.tolist(), schedule.visible(times).sum(1).tolist(), strict=True)}


def batches(count: int, size: int, first: int) -> list[Tensor]:
    return [pixels(small_scenes(first + at, min(64, count - at), size)) for at in range(0, count, 64)]


def indices_of(net: Any, images: list[Tensor]) -> Tensor:
    return torch.cat([net.quantise(batch).indices for batch in images])


def quality(codec: Any, images: list[Tensor], indices: Tensor, given: Tensor | None = None) -> float:
    """Mean PSNR of what diffusion makes of codes [M, K], those that are not `given` [K] hidden."""
    net, at, found = codec.network, 0, []
    for batch in images:
        vectors = net.quantiser.vectors(indices[at : at + len(batch)])
        drawn = net.sample(vectors, net.noise(len(batch), codec.seed), codec.steps, given)
        found.append(psnr(drawn, batch))
        at += len(batch)
    return float(torch.cat(found).mean())


def examined(spec: str, count: int, learned: int, steps: int) -> dict[str, Any]:
    """All figures of one codec.

    Args:
        count, learned: images that are decoded, and whose codes the language model learns. `steps`: of its training.
    """
    codec: Any = laconic.create_method(spec)
    net = codec.network
    images = batches(count, net.sizes.size, EVALUATION_SEED)
    indices, order, k = indices_of(net, images), net.schedule.order(), codec.most
    row: dict[str, Any] = {
        "visible": visibility(net.schedule, codec.steps),
        "codes_in_use": perplexity(indices, net.quantiser.codes),
        "diffusion": quality(codec, images, indices),
        "shuffled": quality(codec, images, indices.roll(1, 0)),
        "none": quality(codec, images, indices, torch.zeros(k, dtype=torch.bool)),
    }
    first = {n: torch.arange(k) >= k - n for n in (1, 2, 4, 8, 16) if n < k}
    row["first"] = {n: quality(codec, images, indices, given) for n, given in first.items()}
    row["last"] = {n: quality(codec, images, indices, given.flip(0)) for n, given in first.items()}
    if net.renderer is not None:
        vectors = [net.quantiser.vectors(part) for part in indices.split([len(batch) for batch in images])]
        drawn = [psnr(net.render(v), batch) for v, batch in zip(vectors, images, strict=True)]
        row["renderer"] = float(torch.cat(drawn).mean())
    if learned:
        known = indices_of(net, batches(learned, net.sizes.size, 0))
        for name, way in (("coarse first", order), ("fine first", order.flip(0))):
            row[f"perplexity, {name}"] = next_code_perplexity(known[:, way], indices[:, way], net.quantiser.codes, steps)
    return row


def figure(codec: Any, images: Tensor, path: Path, zoom: int = 6) -> None:
    """Images beside what is decoded of their first tokens, a line each."""
    net = codec.network
    vectors, k = net.quantiser.vectors(net.quantise(images).indices), codec.most
    noise = net.noise(len(images), codec.seed)
    lengths = [n for n in (1, 4, 8, 16) if n <= k]
    drawn = [shown(net.sample(vectors, noise, codec.steps, torch.arange(k) >= k - n)) for n in lengths]
    columns = {"image": shown(images)} | {f"{n} tokens": column for n, column in zip(lengths, drawn, strict=True)}
    if net.renderer is not None:
        columns["renderer"] = shown(net.render(vectors))
    side, gap, head = images.shape[-1] * zoom, 6, 16
    sheet = Image.new("RGB", (len(columns) * (side + gap) + gap, len(images) * (side + gap) + gap + head), "white")
    write = ImageDraw.Draw(sheet)
    for x, (title, column) in enumerate(columns.items()):
        write.text((gap + x * (side + gap), 3), title, "black")
        for y, image in enumerate(column):
            big = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(big, (gap + x * (side + gap), head + gap + y * (side + gap)))
    sheet.save(path, optimize=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", required=True)
    parser.add_argument("--plain", help="the same codec trained with schedule=all for as many steps")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--learned", type=int, default=8192, help="images for the language model; 0: none is trained")
    parser.add_argument("--lm-steps", type=int, default=600)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    found = {
        name: examined(spec, args.images, args.learned, args.lm_steps)
        for name, spec in (("ordered", args.method), ("plain", args.plain))
        if spec
    }
    args.out.write_text(json.dumps({"images": args.images, **found}, indent=1) + "\n", encoding="utf-8")
    if args.figure:
        codec: Any = laconic.create_method(args.method)
        figure(codec, batches(6, codec.size[0], EVALUATION_SEED)[0], args.figure)


if __name__ == "__main__":
    main()
