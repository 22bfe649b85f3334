"""`laconic serve` under load for minutes: no fault, counters that add up, memory and open files that stay flat.

    python benchmarks/soak.py --seconds 600 --clients 8 --out benchmarks/results/soak.json

Clients ask one after the other, over the loopback, and the run ends by itself: 60 % questions to stored contexts, 20 % plain
prompts, 10 % new contexts, 10 % streams that are left and broken bodies. The memory of front and worker is read every second
once no request is new to them; the run fails if the mean of its last fifth is more than 5 % over that of the fifth before
the middle. No time is measured.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from common import machine

GROWTH = 0.05
FILES = 4
"""Open files that may be more at the end than in the middle: sockets that are being closed."""
TEXT = "The code for falcon is 4815263. The code for heron is 1623421. Nothing else was agreed on that day. "


class Soak:
    """Clients of one server."""

    def __init__(self, address: str, model: str, seconds: float):
        self.address, self.model, self.ends = address, model, time.monotonic() + seconds
        self.statuses: Counter[str] = Counter()
        self.faults: list[str] = []
        self.contexts: list[str] = []
        self._lock = threading.Lock()

    def client(self, number: int) -> None:
        """Ask until the time is over."""
        drawn = random.Random(number)
        with httpx.Client(base_url=self.address, timeout=300) as http:
            while time.monotonic() < self.ends and not self.faults:
                kind = drawn.choices(["context", "plain", "build", "left", "broken"], [60, 20, 10, 5, 5])[0]
                try:
                    self._note(kind, getattr(self, f"_{kind}")(http, drawn))
                except httpx.HTTPError as error:
                    self.faults.append(f"{kind}: {type(error).__name__}")

    def _note(self, kind: str, status: int) -> None:
        with self._lock:
            self.statuses[f"{kind} {status}"] += 1
            if status >= 500 or (kind != "broken" and status not in (200, 201, 202, 404, 409, 429)):
                self.faults.append(f"{kind}: {status}")

    def _body(self, drawn: random.Random, model: str, **more: Any) -> dict[str, Any]:
        ask = [{"role": "user", "content": f"What is the code for falcon, number {drawn.randrange(10**6)}?"}]
        return {"model": model, "messages": ask, "max_tokens": drawn.randint(2, 12), "seed": drawn.randrange(100), **more}

    def _context(self, http: httpx.Client, drawn: random.Random) -> int:
        if not self.contexts:
            return self._build(http, drawn)
        name = f"{self.model}@{drawn.choice(self.contexts[-8:])}"
        return http.post("/v1/chat/completions", json=self._body(drawn, name)).status_code

    def _plain(self, http: httpx.Client, drawn: random.Random) -> int:
        return http.post("/v1/chat/completions", json=self._body(drawn, self.model)).status_code

    def _build(self, http: httpx.Client, drawn: random.Random) -> int:
        body = {"model": self.model, "text": f"{TEXT * 6}{drawn.randrange(10**9)}", "wait": 30, "ttl": 15}
        body["compress"] = {"method": drawn.choice(["keydiff", "snapkv"]), "keep": 0.5}
        answer = http.post("/v1/contexts", json=body)
        if answer.status_code in (200, 201):
            with self._lock:
                self.contexts.append(answer.json()["id"])
        return answer.status_code

    def _left(self, http: httpx.Client, drawn: random.Random) -> int:
        body = self._body(drawn, self.model, stream=True) | {"max_tokens": 60}
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines(), None)
        return answer.status_code

    def _broken(self, http: httpx.Client, drawn: random.Random) -> int:
        body = drawn.choice(['{"model":', "[]", '{"model": "none", "messages": []}', '{"model": 7}'])
        return http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"}).status_code


def watched(process: psutil.Process, ends: float) -> list[dict[str, float]]:
    """Resident bytes of the server and its workers, and open files of both, every second."""
    seen = []
    while time.monotonic() < ends:
        time.sleep(1)
        with suppress(psutil.Error):
            workers = process.children(recursive=True)
            held = {"front": process.memory_info().rss, "workers": sum(p.memory_info().rss for p in workers)}
            seen.append(held | {"files": sum(p.num_fds() for p in [process, *workers])})
    return seen


def counted(text: str) -> dict[str, float]:
    """Requests by status, of `/metrics`."""
    found: Counter[str] = Counter()
    for status, count in re.findall(r'laconic_http_requests_total\{[^}]*code="(\d+)"[^}]*\} (\S+)', text):
        found[status] += float(count)
    return dict(found)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="testbed/lm")
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as store:
        config = Path(store) / "laconic.toml"
        limits = "[limits]\nquota_builds = 50\nmax_inflight = 64\n"
        config.write_text(f'[[model]]\nname = "{given.model}"\n[store]\ndir = "{store}/store"\nmin_free = 0\n{limits}')
        command = [sys.executable, "-m", "laconic", "serve", "--config", str(config), "--port", "8911"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = run(process, given)
        finally:
            process.terminate()
            status = process.wait(120)
    found |= {"machine": machine(), "exit": status}
    print(json.dumps(found, indent=1))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(1 if found["faults"] or status else 0)


def run(process: subprocess.Popen[bytes], given: argparse.Namespace) -> dict[str, Any]:
    """Load the server, and what was seen."""
    address = "http://127.0.0.1:8911"
    while process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{address}/readyz", timeout=5).status_code == 200:
                break
        time.sleep(0.5)
    soak = Soak(address, given.model, given.seconds)
    clients = [threading.Thread(target=soak.client, args=(number,)) for number in range(given.clients)]
    for client in clients:
        client.start()
    seen = watched(psutil.Process(process.pid), soak.ends)
    for client in clients:
        client.join()
    time.sleep(2)
    metrics, faults = counted(httpx.get(f"{address}/metrics", timeout=60).text), list(soak.faults)
    fifth = max(1, len(seen) // 5)
    before, after = seen[len(seen) // 2 - fifth : len(seen) // 2], seen[-fifth:]
    then, now = ({x: statistics.mean(s[x] for s in part) for x in seen[0]} for part in (before, after))
    growth = {x: round(now[x] / then[x] - 1, 4) for x in ("front", "workers")}
    faults += [
        f"the memory of the {x} grew by {share:.1%} in the second half" for x, share in growth.items() if share > GROWTH
    ]
    more = now["files"] - then["files"]
    if more > FILES:
        faults.append(f"{more:.0f} more files are open at the end than in the middle")
    asked = sum(soak.statuses.values())
    if sum(metrics.values()) != asked:
        faults.append(f"{asked} requests were answered, and the metrics count {sum(metrics.values()):.0f}")
    return {
        "settings": {name: str(value) for name, value in vars(given).items() if name != "out"},
        "requests": asked,
        "statuses": dict(sorted(soak.statuses.items())),
        "metrics": metrics,
        "megabytes": {x: [round(s[x] / 1e6) for s in seen[:: max(1, len(seen) // 20)]] for x in growth},
        "growth": growth,
        "more_files": round(more, 1),
        "faults": faults,
    }


if __name__ == "__main__":
    main()
