"""An image codec of which any first part decodes: quality by tokens, beside PNG, JPEG and WebP at equal bytes.

    python benchmarks/codecs.py --method one_d_piece --out benchmarks/results/codecs.json --figure docs/codecs.png

Small scenes of the evaluation's numbers. PSNR is of eight bits and a mean over images. The other formats may shrink an image
before they store it and scale it back; the best of all sizes and qualities whose file fits is taken.
"""

from __future__ import annotations

import argparse
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import laconic
from laconic.codec.images import pixels, psnr, shown
from laconic.codec.lengths import shared
from laconic.tasks.scenes.small import small_scenes
from laconic.tasks.task import EVALUATION_SEED

SHOWN = (1, 4, 16, 64)
FORMATS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"quality": q, "optimize": True} for q in (1, 10, 30, 60, 90)],
    "WEBP": [{"quality": q, "method": 6} for q in (0, 20, 50, 80)],
    "PNG": [{"optimize": True}],
}
SIDES = (32, 16, 8, 4, 2)
COLOURS = (256, 16, 8, 4, 2)


def curves(codec: Any, images: Tensor) -> Tensor:
    """PSNR of each image at 1 .. most tokens, [M, most]."""
    vectors = codec.network.quantiser.vectors(codec.network.quantise(images).indices)
    return torch.stack([psnr(codec.network.draw(vectors[:, :k]), images) for k in range(1, codec.most + 1)], 1)


def files(image: Image.Image, name: str) -> list[tuple[int, float]]:
    """Bytes and PSNR of an image in one format, at every size and quality."""
    found = []
    for side in SIDES:
        small = image.resize((side, side), Image.Resampling.BOX)
        kinds = [small, *(small.quantize(n) for n in COLOURS)] if name == "PNG" else [small]
        for kind in kinds:
            for options in FORMATS[name]:
                kind.save(buffer := BytesIO(), name, **options)
                back = Image.open(BytesIO(buffer.getvalue())).convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
                found.append((len(buffer.getvalue()), float(psnr(pixels([back]), pixels([image])))))
    return found


def beside(images: list[Image.Image], budgets: list[int]) -> dict[str, Any]:
    """Per format the smallest file of all, and at each budget how many images fit and their mean PSNR."""
    rows: dict[str, Any] = {}
    for name in FORMATS:
        tried = [files(image, name) for image in images]
        rows[name] = {"least_bytes": min(size for found in tried for size, _ in found), "budgets": {}}
        for budget in budgets:
            best = [max((q for size, q in found if size <= budget), default=None) for found in tried]
            fit = [q for q in best if q is not None]
            rows[name]["budgets"][budget] = {"images": len(fit), "psnr": sum(fit) / len(fit) if fit else None}
    return rows


def figure(codec: Any, images: Tensor, path: Path, zoom: int = 3) -> None:
    """Images beside what is decoded of 1, 4, 16 and 64 tokens, a line each."""
    vectors = codec.network.quantiser.vectors(codec.network.quantise(images).indices)
    columns = [shown(images), *(shown(codec.network.draw(vectors[:, :k])) for k in SHOWN)]
    side, gap, head = images.shape[-1] * zoom, 6, 16
    sheet = Image.new("RGB", (len(columns) * (side + gap) + gap, len(images) * (side + gap) + gap + head), "white")
    write = ImageDraw.Draw(sheet)
    for x, (title, column) in enumerate(zip(("image", *(f"{k} token{'s' * (k > 1)}" for k in SHOWN)), columns, strict=True)):
        write.text((gap + x * (side + gap), 3), title, "black")
        for y, image in enumerate(column):
            big = image.resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(big, (gap + x * (side + gap), head + gap + y * (side + gap)))
    sheet.save(path, optimize=True)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", required=True)
    parser.add_argument("--without", help="the same codec trained without the tail drop, for as many steps")
    parser.add_argument("--with", dest="given", help="and with it")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--codes", type=Path, help="a folder for the codes of all images, for `laconic inspect --lens`")
    args = parser.parse_args()
    codec: Any = laconic.create_method(args.method)
    scenes = small_scenes(EVALUATION_SEED, args.images, codec.size[0])
    images, bits = pixels(scenes), codec._one().bits
    quality = curves(codec, images)
    lengths = sorted({k for k in (1, 2, 4, 8, 16, 32, 64) if k <= codec.most})
    found: dict[str, Any] = {
        "method": codec.name,
        "images": args.images,
        "tokens": {k: {"bytes": -(-k * bits // 8), "psnr": float(quality[:, k - 1].mean())} for k in lengths},
    }
    header = max(1, (codec.most - 1).bit_length())  # what says how many tokens an image has
    found["adaptive"] = {}
    for k in lengths[1:-1]:
        own = shared(quality, k - header / bits)
        found["adaptive"][k] = {
            "mean_tokens": float(own.float().mean()) + header / bits,
            "psnr": float(quality.gather(1, own[:, None] - 1).mean()),
            "fixed": float(quality[:, k - 1].mean()),
        }
    for name, spec in (("without_drop", args.without), ("with_drop", args.given)):
        if spec:
            other = curves(laconic.create_method(spec), images).mean(0)
            found[name] = {k: float(other[k - 1]) for k in lengths}
    plain = [Image.fromarray(scene) for scene in scenes[:64]]
    found["beside"] = beside(plain, [int(row["bytes"]) for row in found["tokens"].values()])
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.codes:
        args.codes.mkdir(parents=True, exist_ok=True)
        for number, scene in enumerate(scenes):
            codec.encode(Image.fromarray(scene)).save(args.codes / f"{number:04}.codes")
    if args.figure:
        figure(codec, images[:6], args.figure)


if __name__ == "__main__":
    main()
