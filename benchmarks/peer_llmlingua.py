"""Which tokens `llmlingua` and the package ``llmlingua`` 0.2.2 keep of the same texts, scored by ``testbed/lm``.

    python benchmarks/peer_llmlingua.py --peer /path/to/llmlingua-env/bin/python --out benchmarks/results/peer_llmlingua.json

``first_0`` and ``first_1``: the package's text begins with what it keeps of the first window, whose threshold it takes over
the whole text. The same agreement of that beginning with the tokens whose own surprise is over the threshold, and with the
tokens *before* those.

The peer's environment needs ``pip install llmlingua==0.2.2 transformers==4.46.3``. The texts are windows of held-out
documentation. Agreement is the longest common subsequence of both kept texts, in the scorer's tokens, twice over the sum of
their lengths. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

import laconic
from laconic.shipped import model_path
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text import corpus
from laconic.tasks.text.haystack import haystack

VARIANTS = ("prefix", "window")
"""Our threshold as the published code takes it, and by window."""


def common(a: list[int], b: list[int]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def agree(a: list[int], b: list[int]) -> float:
    """Twice the longest common subsequence over the sum of both lengths."""
    return 2 * common(a, b) / max(1, len(a) + len(b))


def first_window(ids: list[int], surprise: list[float], rate: float, shift: int) -> list[int]:
    """Tokens of the first 200 that the published threshold keeps, when each is judged by the surprise `shift` tokens on."""
    known = surprise[1:]
    share = rate * len(ids) / (len(ids) + 3)
    threshold = sorted(known, reverse=True)[max(0, int(len(known) * share) - 1)]
    return [ids[i] for i in range(1 - shift, 200) if surprise[i + shift] > threshold]


def old_style(folder: Path, into: Path) -> Path:
    """A copy of a checkpoint whose configuration transformers 4 reads, too."""
    shutil.copytree(folder, into, dirs_exist_ok=True)
    config = json.loads((into / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    config["torch_dtype"] = config["dtype"]
    (into / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((into / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
    (into / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return into


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="python of the environment with llmlingua 0.2.2")
    parser.add_argument("--texts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 0.33])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = laconic.load("testbed/lm", dtype=torch.float32)

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)  # type: ignore[no-any-return]

    lines = corpus.lines("prose", held_out=True)
    texts = []
    for number in range(args.texts):
        rng = random.Random(f"peer-{EVALUATION_SEED + number}")
        texts.append("\n".join(haystack(rng, lines, args.tokens, lambda text: len(ids(text)))))
    with tempfile.TemporaryDirectory() as place:
        folder = old_style(model_path("testbed/lm"), Path(place) / "model")
        asked = json.dumps({"model": str(folder), "texts": texts, "rates": args.rates})
        said = subprocess.run(
            [args.peer, Path(__file__).parent / "worker_llmlingua.py"], input=asked, capture_output=True, text=True
        )
    if said.returncode:
        raise SystemExit(said.stderr)
    theirs = json.loads(said.stdout.splitlines()[-1])
    rows: list[dict[str, Any]] = []
    scorer = laconic.Scorer(model, tokenizer)
    for text, shortened in zip(texts, theirs, strict=True):
        surprise = scorer.surprise(ids(text))
        for rate, their in zip(args.rates, shortened, strict=True):
            peer, total = ids(their), len(ids(text))
            row: dict[str, Any] = {"tokens": total, "rate": rate, "package": len(peer) / total}
            for shift in (0, 1):
                first = first_window(ids(text), surprise, rate, shift)
                row[f"first_{shift}"] = agree(first, peer[: len(first)])
            for variant in VARIANTS:
                method = laconic.LLMLingua(keep=rate, quantile=variant, scorer=scorer)  # type: ignore[arg-type]
                own = ids(laconic.shorten(text, method).text)
                row[variant] = len(own) / total
                row[f"agree_{variant}"] = agree(own, peer)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
