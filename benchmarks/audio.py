"""Word errors of Whisper tiny.en against the encoder tokens that its decoder looks at, on real speech.

    python -m benchmarks.audio [--librivox FOLDER] [--prompts FOLDER] [--sounds 50] [--methods NAME,...]

The sounds are those of two Debian packages, read where they are installed: ``pocketsphinx-testdata``, five sentences of
LibriVox with transcripts, and ``asterisk-core-sounds-en-wav``, telephone prompts of one speaker without. A prompt's
reference is what the uncompressed model writes down, so its errors are changes. Every answer is a line of
results/audio.jsonl as soon as it is there; run again to go on. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput

import laconic
from laconic.media.audio import RATE, load_sound
from laconic.specs import split_methods
from laconic.tasks.speech import edits, words

RESULTS = Path(__file__).parent / "results" / "audio.jsonl"
LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
KEEPS = (0.5, 0.25, 0.1)
METHODS = (
    "audio_pool",
    "a_tome",
    "a_tome:at=output",
    "topk_audio",
    "silence_gate",
    "random_audio",
    "crop_audio",
)
WHOLE = "whole"
FIXED = (WHOLE, "silence_gate:shortest=60", "silence_gate:shortest=60,strip=input", "silence_gate")
"""Settings whose number of tokens is their own: all 1,500 of a window; without its padding; and without pauses, too."""
BATCH, NEW = 10, 100
LENGTHS = (2.0, 8.0)
"""Seconds of the prompts that are taken."""


def sounds(librivox: Path, prompts: Path, count: int) -> dict[str, tuple[Path, str | None]]:
    """Name -> file and transcript (None: the uncompressed model's own)."""
    found: dict[str, tuple[Path, str | None]] = {}
    for line in (librivox / "transcription").read_text(encoding="utf-8").splitlines():
        name = re.search(r"\((\S+)\)\s*$", line)
        if name:
            text = re.sub(r"<.*?>|\([^)]*\)", " ", line)
            found[f"librivox/{name[1]}"] = librivox / f"{name[1]}.wav", text
    names = sorted(path for path in prompts.glob("*.wav") if LENGTHS[0] <= path.stat().st_size / 16_000 <= LENGTHS[1])
    for path in sorted(random.Random(1_000_000).sample(names, min(count, len(names)))):
        found[f"prompts/{path.stem}"] = path, None
    return found


@contextmanager
def remembered(model: Any, known: dict[int, torch.Tensor]) -> Iterator[None]:
    """While it is open, the encoder returns what it has returned for the same windows before: what is done after it, and
    what is counted, does not depend on running it again."""
    encoder = model.model.encoder
    forward = encoder.forward

    def recalled(input_features: torch.Tensor, *args: Any, **kwargs: Any) -> BaseModelOutput:
        keys = [hash(one.numpy().tobytes()) for one in input_features]
        if any(key not in known for key in keys):
            hidden = forward(input_features, *args, **kwargs).last_hidden_state
            known.update(zip(keys, hidden, strict=True))
        return BaseModelOutput(last_hidden_state=torch.stack([known[key] for key in keys]))

    encoder.forward = recalled
    try:
        yield
    finally:
        del encoder.forward


def settings(methods: list[str]) -> list[tuple[str, float | None]]:
    """Specs with their shares; None: the setting's own."""
    own = [
        (spec, None) for spec in FIXED if spec == WHOLE or spec.partition(":")[0] in {m.partition(":")[0] for m in methods}
    ]
    return own + [(spec, keep) for spec in methods for keep in KEEPS]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--librivox", type=Path, default=LIBRIVOX)
    arguments.add_argument("--prompts", type=Path, default=PROMPTS)
    arguments.add_argument("--sounds", type=int, default=50, help="telephone prompts")
    arguments.add_argument("--methods", default=",".join(METHODS))
    arguments.add_argument("--out", type=Path, default=RESULTS)
    given = arguments.parse_args()
    torch.set_grad_enabled(False)
    model, processor = laconic.load("whisper-tiny-en")
    files = sounds(given.librivox, given.prompts, given.sounds)
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    rows = {(row["spec"], row["keep"], row["sound"]): row for row in map(json.loads, lines)}
    heard = {name: load_sound(path) for name, (path, _) in files.items()}
    known: dict[int, torch.Tensor] = {}
    methods = split_methods([given.methods])
    with given.out.open("a", encoding="utf-8") as out:
        for spec, keep in settings(list(methods)):
            left = [name for name in files if (spec, keep, name) not in rows]
            method = None if spec == WHOLE else laconic.create_method(spec, **({} if keep is None else {"keep": keep}))
            for first in range(0, len(left), BATCH):
                batch = left[first : first + BATCH]
                inputs = processor(
                    [heard[name].samples for name in batch],
                    sampling_rate=RATE,
                    return_tensors="pt",
                    return_attention_mask=True,
                )
                inside = method is not None and (method.inside or method.strip == "input")
                with laconic.compress_encoder(model, *([] if method is None else [method])) as session:
                    if inside:
                        written = model.generate(**inputs, do_sample=False, max_new_tokens=NEW)
                    else:
                        with remembered(model, known):
                            written = model.generate(**inputs, do_sample=False, max_new_tokens=NEW)
                stats = session.stats
                for name, window, text in zip(
                    batch, session.windows, processor.batch_decode(written, skip_special_tokens=True), strict=True
                ):
                    row = {
                        "spec": spec, "keep": keep, "sound": name, "text": text.strip(),
                        "tokens": window.kept + window.silence, "kept": window.kept, "of": window.sound,
                        "own": stats.method_flops / max(1, stats.encoder_flops_full),
                    }  # fmt: skip
                    row["seconds"] = round(heard[name].seconds, 2)
                    rows[spec, keep, name] = row
                    reference = files[name][1] or rows[WHOLE, None, name]["text"]
                    row["words"], row["edits"] = len(words(reference)), edits(words(reference), words(row["text"]))
                    out.write(json.dumps(row) + "\n")
                out.flush()
            done = [rows[spec, keep, name] for name in files]
            rate = sum(row["edits"] for row in done) / sum(row["words"] for row in done)
            print(f"[{time.strftime('%H:%M:%S')}] {spec} keep={keep}: {rate:.3f}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
