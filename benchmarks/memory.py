"""Peak memory of a 16k prefill, one fresh process per measurement: the process's high-water mark less what it held before.

    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/memory.py --peer /path/to/kvpress-env/bin/python

The mark (VmHWM, Linux) is reset after the model has loaded and run 64 tokens, so the model is not in the figure. Every
evicting method must stay below the uncompressed peak. fp32. Writes results/memory.json.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from common import save, say, target
from peer_kvpress import Worker

EVICTING = [
    "snapkv",
    "adakv",
    "expected_attention",
    "keydiff",
    "knorm",
    "pyramidkv",
    "fastkv",
    "tova",
    "h2o",
    "streaming_llm",
    "truncate",
    "random",
]


def measure(python: str, script: str, method: str, tokens: int) -> dict[str, Any]:
    worker = Worker(python, script)
    try:
        return worker.ask(do="memory", method=method, tokens=tokens, keep=0.1)
    finally:
        worker.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-kvpress/bin/python", help="python of an environment with kvpress 0.5.5")
    parser.add_argument("--quick", action="store_true", help="4k instead of 16k")
    parser.add_argument("--methods", nargs="*", default=EVICTING)
    arguments = parser.parse_args()
    tokens = 4096 if arguments.quick else 16384
    runs = [(sys.executable, "laconic", m) for m in ("stock", "none", *arguments.methods)]
    runs += [(arguments.peer, "kvpress", m) for m in ("none", "snapkv", "adakv")]
    rows: list[dict[str, Any]] = []
    failed, plain = 0, None
    for python, who, method in runs:
        try:
            reply = measure(python, f"worker_{who}.py", method, tokens)
        except RuntimeError as error:
            say(f"memory {who} {method} FAILED: {error}")
            failed += 1
            continue
        row = {"section": "memory", "who": who, "method": method, "tokens": tokens}
        row |= {"peak_mb": round(reply["peak"] / 1e6, 1), "kept_mb": round(reply["kept"] / 1e6, 1)}
        rows.append(row)
        say(f"memory {who} {method}: peak {row['peak_mb']} MB, kept {row['kept_mb']} MB")
        if who == "laconic" and method == "none":
            plain = reply["peak"]
        if plain is not None and who == "laconic" and method != "none":
            text = f"{method}, keep=0.1, {tokens // 1024}k prefill: peak memory / laconic's uncompressed peak"
            rows.append(target("memory", round(reply["peak"] / plain, 4), 0.9999, True, text))
    save("memory", rows, quick=arguments.quick)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
