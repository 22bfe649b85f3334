"""All measurements and the tables, unattended: about 70 minutes on two idle cores (see README.md).

    python benchmarks/run_all.py [--quick] [--peer /path/to/kvpress-env/bin/python] [--only speed long_memory ...]

A part that fails is reported and the rest goes on; the exit code is then not 0. Without a kvpress environment the peer's
part fails, the rest does not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
MEASURED = ["speed", "fused", "decode_attention", "peer", "floors", "memory", "long_memory", "vision", "agree"]
PAGES = ["speed", "kvpress", "vision", "fused", "decode_attention"]
"""Of tools/pages; they read what was measured."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small contexts: a check of the scripts, not a measurement")
    parser.add_argument("--peer", default=".venv-kvpress/bin/python", help="python of an environment with kvpress 0.5.5")
    parser.add_argument("--only", nargs="*", choices=MEASURED, default=MEASURED)
    arguments = parser.parse_args()
    quick = ["--quick"] if arguments.quick else []
    peer = ["--peer", arguments.peer]
    parts = {
        "speed": ["speed.py", *quick],
        "fused": ["fused.py", *quick],
        "decode_attention": ["decode_attention.py", *quick],
        "peer": ["peer_kvpress.py", *quick, *peer],
        "floors": ["floors.py"],
        "memory": ["memory.py", *quick, *peer],
        "long_memory": ["long_memory.py", *quick],
        "vision": ["vision.py", *quick],
        "agree": ["agree_kvpress.py", *quick, *peer],
    }
    files = {"speed": "speed_*.json", "peer": "peer_*.json", "agree": "agree_*.json"}
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    pages = {f"page {name}": ["-m", f"tools.pages.{name}"] for name in PAGES}
    commands = {name: [str(HERE / parts[name][0]), *parts[name][1:]] for name in arguments.only} | pages
    failed = []
    for name, command in commands.items():
        for old in () if name in pages else (HERE / "results").glob(files.get(name, f"{name}.json")):
            old.unlink()  # what fails now must be missing from the tables, not left over from another day
        began = time.time()
        code = subprocess.run([sys.executable, *command], env=env).returncode
        print(f"== {name}: exit code {code}, {time.time() - began:.0f} s", file=sys.stderr, flush=True)
        if code:
            failed.append(name)
    if failed:
        print(f"== FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
