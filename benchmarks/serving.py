"""laconic's server beside `transformers serve`: one document that several clients ask, and a single plain request.

    python benchmarks/serving.py --model smollm2 --tokens 4000 --clients 1,4,8 --out benchmarks/results/serving.json

Both servers run on this machine, one after the other, with the same model; every client asks one question after the
other. For the stock server the document is part of every request; laconic reads it once, as a context. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="smollm2")
    options.add_argument("--method", default="keydiff")
    options.add_argument("--keep", type=float, default=0.25)
    options.add_argument("--tokens", type=int, default=4000)
    options.add_argument("--clients", default="1,4,8")
    options.add_argument("--each", type=int, default=3)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    clients, text = [int(x) for x in given.clients.split(",")], document(given.tokens)
    found: dict[str, Any] = {"machine": machine(), "settings": {k: str(v) for k, v in vars(given).items()}, "rows": []}

    def measure(name: str, url: str, model: str, shared: Callable[[str], dict[str, Any]]) -> None:
        fixed = {"model": model, "temperature": 0, "max_tokens": ANSWER}
        plain = {**fixed, "messages": [{"role": "user", "content": QUESTIONS[0]}]}
        streamed(url, plain)  # first calls cost more
        row = {"server": name, "what": "plain", "seconds": statistics.median(streamed(url, plain)[1] for _ in range(5))}
        found["rows"].append(row)
        for count in clients:
            figures = load(url, lambda question: {**fixed, **shared(question)}, count, given.each)
            found["rows"].append({"server": name, "what": "shared document", "clients": count, **figures})
            print(json.dumps(found["rows"][-1]), flush=True)

    command = [sys.executable, "-m", "laconic", "serve", "--model", given.model, "--port", "8901"]
    process = started([*command, "--preset", f"bench={given.method}:keep={given.keep}"], "http://127.0.0.1:8901/readyz")
    try:
        body = {"model": given.model, "text": text, "preset": "bench", "wait": 30}
        made = httpx.post("http://127.0.0.1:8901/v1/contexts", json=body, timeout=600).json()
        while made["status"] in ("queued", "running"):
            time.sleep(0.5)
            made = httpx.get(f"http://127.0.0.1:8901/v1/contexts/{made['id']}").json()
        found["context"] = {name: made[name] for name in ("tokens", "bytes", "seconds", "compression")}

        def asked(question: str) -> dict[str, Any]:
            return {"laconic": {"context": made["id"]}, "messages": [{"role": "user", "content": question}]}

        measure("laconic", "http://127.0.0.1:8901/v1/chat/completions", given.model, asked)
    finally:
        process.terminate()
        process.wait(60)

    from laconic.pretrained import MODELS, pretrained_path
    from laconic.shipped import model_path

    path = str(pretrained_path(given.model) if given.model in MODELS else model_path(given.model))
    script = str(Path(sys.executable).with_name("transformers"))
    process = started([script, "serve", "--host", "127.0.0.1", "--port", "8902", path], "http://127.0.0.1:8902/health")
    try:

        def whole(question: str) -> dict[str, Any]:
            return {"messages": [{"role": "user", "content": f"{text}\n\nQuestion: {question}"}]}

        measure("transformers serve", "http://127.0.0.1:8902/v1/chat/completions", path, whole)
    finally:
        process.terminate()
        process.wait(60)
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
