"""laconic's server beside `transformers serve`: one document that several clients ask, and a single plain request.

    python benchmarks/serving.py --model smollm2 --tokens 4000 --clients 1,4,8 --out benchmarks/results/serving.json

Both servers run on this machine with the same model, and are asked by turns; every client asks one question after the other.
For the stock server the document is part of every request; laconic reads it once, as a context, and the time for that is in
the results. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from common import machine

QUESTIONS = [
    f"What is the code for {bird}?" for bird in ("falcon", "heron", "crane", "owl", "raven", "wren", "swift", "finch")
]
ANSWER = 16
"""Tokens of every answer."""


def document(tokens: int) -> str:
    """About so many tokens of sentences."""
    lines = [
        f"Note {i}: the code for {q.split()[-1][:-1]} is {(i * 7919) % 900000 + 100000}." for i, q in enumerate(QUESTIONS)
    ]
    filler = "The meeting went on, and nothing else was agreed on that day. "
    return " ".join(lines) + " " + filler * max(1, (tokens - 150) // 13)


def started(command: list[str], ready: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 600
    while time.monotonic() < ends and process.poll() is None:
        try:
            if httpx.get(ready, timeout=5).status_code == 200:
                return process
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    process.kill()
    raise SystemExit(f"{command[:4]} did not become ready")


def streamed(url: str, body: dict[str, Any]) -> tuple[float, float]:
    """Seconds to the first token, and to the last."""
    began, first = time.perf_counter(), 0.0
    with httpx.stream("POST", url, json={**body, "stream": True}, timeout=600) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {response.read().decode()[:300]}")
        for line in response.iter_lines():
            if (
                not first
                and line.startswith("data: {")
                and '"content"' in line
                and '"content":""' not in line.replace(" ", "")
            ):
                first = time.perf_counter() - began
    return first, time.perf_counter() - began


def load(url: str, body_of: Callable[[str], dict[str, Any]], clients: int, each: int) -> dict[str, float]:
    """`clients` at once, each with `each` questions one after the other."""
    firsts: list[float] = []

    def client(number: int) -> None:
        for i in range(each):
            firsts.append(streamed(url, body_of(QUESTIONS[(number + i) % len(QUESTIONS)]))[0])

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return {"requests_per_second": clients * each / seconds, "first_token_seconds": statistics.median(firsts)}


@contextmanager
def running(command: list[str], ready: str) -> Iterator[None]:
    """A server that has answered `ready`, and is ended afterwards."""
    process = started(command, ready)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def pairs(first: str, second: str, bodies: tuple[dict[str, Any], dict[str, Any]], count: int) -> dict[str, Any]:
    """Seconds of one plain request to each of two idle servers, by turns, and the median of their quotients."""
    for url, body in zip((first, second), bodies, strict=True):
        streamed(url, body)  # first calls cost more
    taken = [(streamed(first, bodies[0])[1], streamed(second, bodies[1])[1]) for _ in range(count)]
    return {
        "what": "one plain request",
        "laconic_seconds": statistics.median(a for a, _ in taken),
        "transformers_serve_seconds": statistics.median(b for _, b in taken),
        "quotient": statistics.median(a / b for a, b in taken),
        "quotients": sorted(round(a / b, 3) for a, b in taken),
    }


def context(url: str, model: str, text: str) -> dict[str, Any]:
    """What the server says about `text`, compressed once."""
    made = httpx.post(url, json={"model": model, "text": text, "preset": "bench", "wait": 30}, timeout=600).json()
    while made["status"] in ("queued", "running"):
        time.sleep(0.5)
        made = httpx.get(f"{url}/{made['id']}").json()
    return made  # type: ignore[no-any-return]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="smollm2")
    options.add_argument("--method", default="keydiff")
    options.add_argument("--keep", type=float, default=0.25)
    options.add_argument("--tokens", type=int, default=4000)
    options.add_argument("--clients", default="1,4,8")
    options.add_argument("--each", type=int, default=2, help="questions of every client about the document")
    options.add_argument("--pairs", type=int, default=15, help="plain requests to each server, by turns")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    clients, text = [int(x) for x in given.clients.split(",")], document(given.tokens)
    found: dict[str, Any] = {"machine": machine(), "settings": {k: str(v) for k, v in vars(given).items() if k != "out"}}

    from laconic.pretrained import MODELS, pretrained_path
    from laconic.shipped import model_path

    path = str(pretrained_path(given.model) if given.model in MODELS else model_path(given.model))
    ours = [sys.executable, "-m", "laconic", "serve", "--model", given.model, "--port", "8901"]
    ours += ["--preset", f"bench={given.method}:keep={given.keep}"]
    stock = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", "8902", path]
    fixed = {"temperature": 0, "max_tokens": ANSWER}
    with (
        running(ours, "http://127.0.0.1:8901/readyz"),
        running(stock, "http://127.0.0.1:8902/health"),
    ):
        chats = [f"http://127.0.0.1:{port}/v1/chat/completions" for port in (8901, 8902)]
        made = context("http://127.0.0.1:8901/v1/contexts", given.model, text)
        found["context"] = {name: made[name] for name in ("tokens", "bytes", "seconds", "compression")}
        plain = {**fixed, "messages": [{"role": "user", "content": QUESTIONS[0]}]}
        found["plain"] = pairs(*chats, ({**plain, "model": given.model}, {**plain, "model": path}), given.pairs)
        print(json.dumps(found["plain"]), flush=True)

        def stored(question: str) -> dict[str, Any]:
            about = {"laconic": {"context": made["id"]}, "messages": [{"role": "user", "content": question}]}
            return {**fixed, "model": given.model, **about}

        def whole(question: str) -> dict[str, Any]:
            asked = f"{text}\n\nQuestion: {question}"
            return {**fixed, "model": path, "messages": [{"role": "user", "content": asked}]}

        found["shared"] = []
        for count in clients:
            for name, url, body in (("laconic", chats[0], stored), ("transformers serve", chats[1], whole)):
                found["shared"].append({"server": name, "clients": count, **load(url, body, count, given.each)})
                print(json.dumps(found["shared"][-1]), flush=True)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
