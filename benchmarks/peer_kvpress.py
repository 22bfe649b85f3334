"""laconic beside kvpress 0.5.5 and stock transformers: a worker process each, asked in turn, the order turning every round.

    PYTHONPATH=$PWD/src HF_HUB_OFFLINE=1 python benchmarks/peer_kvpress.py --peer /path/to/kvpress-env/bin/python

Workers: laconic (this interpreter), kvpress (an environment of its own: kvpress 0.5.5 needs transformers < 5.3). Only one
works at a time. Scorers' own share of prefill at 1k, 4k, 16k (16k on the first two of the eight layers: each layer costs the
same, so the share does), with two threads and with one; decoding and stored bytes at keep=0.1 of 16k. Writes
results/peer_scorers.json, peer_scorers_one_thread.json and peer_decode.json.
h2o is kvpress's ObservedAttention, which needs eager attention, so its T x T matrices stop it at 4k here; there whole
prefills are compared, each against the same worker's prefill without compression.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ratio, save, say, target

METHODS = ["snapkv", "adakv", "expected_attention", "keydiff", "knorm", "tova"]
HERE = Path(__file__).parent
Row = dict[str, Any]


class Worker:
    """A process that answers one request at a time; while it waits it uses no core."""

    def __init__(self, python: str, script: str, threads: int = 2):
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "BENCH_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [python, str(HERE / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=HERE
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended: {self.process.args!r}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{request}: {reply['error']}")
        return reply

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def shares(workers: dict[str, Worker], tokens: int, layers: int, rounds: int) -> list[Row]:
    """Own share of every method in both, relative to the same worker's prefill without compression."""
    seconds: dict[tuple[str, str], list[float]] = {}
    own: dict[tuple[str, str], list[float]] = {}
    for i in range(rounds):
        for method in ["none", *METHODS]:
            for who in ("laconic", "kvpress") if i % 2 else ("kvpress", "laconic"):
                reply = workers[who].ask(do="prefill", method=method, tokens=tokens, keep=0.1, layers=layers)
                if rounds == 1 or i:  # the first of several rounds warms up
                    seconds.setdefault((who, method), []).append(reply["seconds"])
                    own.setdefault((who, method), []).append(reply["own"])
    base = {who: statistics.median(seconds[who, "none"]) for who in ("laconic", "kvpress")}
    rows: list[Row] = []
    for method in METHODS:
        spent = {who: statistics.median(own[who, method]) for who in ("laconic", "kvpress")}
        share = {who: spent[who] / base[who] for who in spent}
        row: Row = {
            "section": "scorers",
            "method": method,
            "tokens": tokens,
            "layers": layers,
            "rounds": len(own["laconic", method]),
        }
        row |= {"own_ms_per_layer": {who: round(x / layers * 1e3, 3) for who, x in spent.items()}}
        row |= {
            "share": {who: round(x, 5) for who, x in share.items()},
            "prefill_ms": {w: round(s * 1e3, 1) for w, s in base.items()},
        }
        rows.append(row)
        mine, theirs = (f"{share[who]:.2%}" for who in ("laconic", "kvpress"))
        text = f"{method}, {tokens // 1024}k: own share of prefill {mine}, kvpress {theirs}; ratio"
        rows.append(target("scorers", round(share["laconic"] / share["kvpress"], 3), 0.5, True, text))
    return rows


def observed(workers: dict[str, Worker], tokens: int, rounds: int) -> list[Row]:
    """H2O: what whole prefills cost over the same worker's plain ones (kvpress must run eager attention)."""
    cost: dict[str, list[float]] = {"laconic": [], "kvpress": []}
    for _ in range(rounds):
        for who, worker in workers.items():
            plain, with_method = (
                worker.ask(do="prefill", method=m, tokens=tokens, keep=0.1, layers=2)["seconds"] for m in ("none", "h2o")
            )
            cost[who].append(with_method / plain - 1)
    share = {who: statistics.median(values[1:] or values) for who, values in cost.items()}
    row = {
        "section": "scorers",
        "method": "h2o",
        "tokens": tokens,
        "layers": 2,
        "share": {w: round(x, 4) for w, x in share.items()},
    }
    text = f"h2o, {tokens // 1024}k: adds {share['laconic']:.0%} to a prefill, kvpress (eager) {share['kvpress']:.0%}; ratio"
    return [row, target("scorers", round(share["laconic"] / share["kvpress"], 3), 0.5, True, text)]


def scorers(workers: dict[str, Worker], quick: bool) -> list[Row]:
    rows = shares(workers, 1024, 8, 7) + shares(workers, 4096, 2 if quick else 4, 3)
    rows += observed(workers, 1024, 4)
    return rows if quick else rows + shares(workers, 16384, 2, 1)


def decoding(workers: dict[str, Worker], quick: bool) -> list[Row]:
    """Decode time and stored bytes after the real prefill of 16k (4k when quick)."""
    tokens, rounds = (4096 if quick else 16384), 8
    slots = [("laconic", m) for m in ("stock", "none", "snapkv", "adakv")] + [
        ("kvpress", m) for m in ("none", "snapkv", "adakv")
    ]
    kept: dict[str, int] = {}
    for who, method in slots:
        say(f"prefill of {tokens} for decoding: {who} {method}")
        reply = workers[who].ask(do="load", slot=method, method=method, tokens=tokens, keep=0.1)
        kept[f"{who} {method}"] = reply["bytes"]
    times: dict[str, list[float]] = {name: [] for name in kept}
    for i in range(rounds + 1):
        for who, method in slots if i % 2 else slots[::-1]:
            reply = workers[who].ask(do="decode", slot=method, keep=0.1, steps=7)
            if i:
                times[f"{who} {method}"].append(statistics.median(reply["seconds"]))
    full = kept["laconic stock"]
    rows: list[Row] = []
    for name, values in times.items():
        row = {"section": "peer decode", "who": name, "tokens": tokens, "ms": round(statistics.median(values) * 1e3, 3)}
        rows.append(row | {"bytes_kept": round(kept[name] / full, 5)})
        say(str(rows[-1]))
    for method, limit in (("none", 1.0), ("snapkv", 1.0), ("adakv", 1.0)):
        against = ratio(times, f"laconic {method}", f"kvpress {method}")
        text = (
            f"decode at {tokens // 1024}k, {method}, keep=0.1: laconic / kvpress"
            if method != "none"
            else (f"decode at {tokens // 1024}k, nothing removed: laconic / kvpress (stock transformers 5.2)")
        )
        rows.append(target("peer decode", against["ratio"], limit, True, text))
    share = kept["laconic adakv"] / full
    text = f"adakv, keep=0.1: stored share {share:.4f}, kvpress {kept['kvpress adakv'] / full:.4f}; off 10 % by (relative)"
    rows.append(target("peer bytes", round(abs(share / 0.1 - 1), 5), 0.02, True, text))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-kvpress/bin/python", help="python of an environment with kvpress 0.5.5")
    parser.add_argument("--quick", action="store_true", help="4k at most")
    parser.add_argument("--threads", type=int, nargs="*", choices=(1, 2), default=[2, 1], help="1: the scorers only")
    arguments = parser.parse_args()
    return sum(measured(arguments, threads) for threads in arguments.threads) and 1


def measured(arguments: argparse.Namespace, threads: int) -> int:
    """Run the parts that belong to so many threads, each into its file; how many failed."""
    workers = {
        "laconic": Worker(sys.executable, "worker_laconic.py", threads),
        "kvpress": Worker(arguments.peer, "worker_kvpress.py", threads),
    }
    parts = {"peer_scorers_one_thread": scorers} if threads == 1 else {"peer_scorers": scorers, "peer_decode": decoding}
    failed = 0
    try:
        for name, section in parts.items():
            try:
                versions = workers["kvpress"].ask(do="versions")
                rows = section(workers, arguments.quick)
                for row in rows if threads == 1 else ():
                    if "text" in row:
                        row["text"] = "one thread, " + row["text"]
                save(name, rows, peer=versions, quick=arguments.quick, worker_threads=threads)
            except RuntimeError as error:
                say(f"{name} FAILED: {error}")
                failed += 1
    finally:
        for worker in workers.values():
            worker.close()
    return failed


if __name__ == "__main__":
    sys.exit(main())
