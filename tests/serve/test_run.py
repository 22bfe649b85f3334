"""The server as processes: workers are killed, signals come, and what was reported ready is still there and whole."""

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest
from helpers.bench_tools import save_tiny

from laconic.cache.saved import header
from laconic.memory.store import SegmentStore

ROUNDS = [pytest.param(20, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.kill)]
"""Of killing: three workers, then the whole server, which gives a worker up that dies a fourth time in ten minutes."""
TEXT = "The code for falcon is 4815263. " * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


class Served:
    """A server in a process of its own."""

    def __init__(self, *options):
        command = [sys.executable, "-m", "laconic", "serve", "--port", "0", *map(str, options)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def address(self, patience=600):
        ends = time.monotonic() + patience
        while time.monotonic() < ends and self.process.poll() is None:
            for line in list(self.lines):
                if found := re.search(r"at (http://\S+)/v1", line):
                    return found[1]
            time.sleep(0.05)
        raise AssertionError("".join(self.lines))

    def worker(self):
        """Of the child processes, the one that holds the model."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "spawn_main" in " ".join(child.cmdline()))

    def stop(self, sig=signal.SIGTERM, patience=60):
        self.process.send_signal(sig)
        return self.process.wait(patience)


@contextmanager
def served(*options):
    server = Served(*options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(30)


def ready(address):
    with suppress(httpx.HTTPError):
        return httpx.get(f"{address}/readyz", timeout=60).status_code == 200


def wait_until(true, patience=600):
    ends = time.monotonic() + patience
    while not true():
        assert time.monotonic() < ends, "it took too long"
        time.sleep(0.05)


def create(address, text, **more):
    with suppress(httpx.HTTPError):
        body = {"model": "tiny", "text": text, "wait": 30, "compress": {"method": "keydiff", "keep": 0.5}, **more}
        return httpx.post(f"{address}/v1/contexts", json=body, timeout=60)


def configured(folder, tmp_path):
    path = tmp_path / "laconic.toml"
    store = f'[store]\ndir = "{tmp_path / "store"}"\nmin_free = 0\n'
    path.write_text(f'[[model]]\nname = "tiny"\npath = "{folder}"\n{store}[limits]\nquota_builds = 50\n')
    return path


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_first_signal_drains(folder, tmp_path):
    with served("--config", configured(folder, tmp_path)) as server:
        address = server.address()
        made = create(address, TEXT).json()
        long = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True, "logit_bias": {"2": -100}}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=long, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.worker().kill()
            told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert told[-1]["error"]["code"] == "worker_restarting"
        wait_until(lambda: ready(address))
        ask = {"model": f"tiny@{made['id']}", "messages": [{"role": "user", "content": "falcon?"}], "max_tokens": 4}
        got = httpx.post(f"{address}/v1/chat/completions", json=ask, timeout=60).json()
        assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == made["tokens"]["original"]
        with httpx.stream(
            "POST", f"{address}/v1/chat/completions", json={**long, "max_tokens": 300}, timeout=60
        ) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2] == "data: [DONE]" or rest[-1] == "data: [DONE]"
        assert server.process.wait(60) == 0


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path):
    with served("--model", tmp_path / "none", "--store", tmp_path / "store") as server:
        assert server.process.wait(600) == 1
        assert "does not exist" in "".join(server.lines)


@pytest.mark.parametrize("most", ROUNDS)
def test_killed_at_random_moments_the_store_stays_whole(folder, tmp_path, most):
    """Builds and a stream run when the whole server, or its worker, is killed. What was reported ready is there afterwards,
    every byte of it."""
    config, drawn, reported = configured(folder, tmp_path), random.Random(4), {}
    rounds = 0
    while rounds < most:
        with served("--config", config) as server:
            address = server.address()
            for _ in range(5):
                if rounds == most:
                    break
                rounds += 1
                wait_until(lambda address=address: ready(address))
                texts = [f"{TEXT} Round {rounds}, number {i}." for i in range(3)]
                found = [None] * 3

                def make(i, address=address, texts=texts, found=found):
                    found[i] = create(address, texts[i])

                threads = [threading.Thread(target=make, args=(i,)) for i in range(3)]
                for thread in threads:
                    thread.start()
                time.sleep(drawn.random() * 2)
                whole, worker = rounds % 4 == 0, server.worker()
                (psutil.Process(server.process.pid) if whole else worker).kill()
                for thread in threads:
                    thread.join()
                for response in filter(None, found):
                    if response.status_code in (200, 201) and response.json()["status"] == "ready":
                        reported[response.json()["id"]] = response.json()
                psutil.wait_procs([worker], timeout=60)
                assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE  # no worker outlives its server
                if whole or server.process.poll() is not None:
                    break
    namespaces = [path.name for path in (tmp_path / "store" / "v1").glob("*")]
    stores = [SegmentStore(tmp_path / "store", namespace=name) for name in namespaces]
    assert all(store.verify() == [] for store in stores)
    held = {entry.key: store.get(entry.key) for store in stores for entry in store.entries()}
    assert set(reported) <= set(held)
    for name, facts in reported.items():
        assert header(held[name])["tokens"] == facts["tokens"]["original"]
