"""The server under Ray Serve: replicas behind one address that share contexts, streams, and a clear error without Ray."""

import socket
import sys
from importlib.metadata import PackageNotFoundError, version

import httpx
import pytest
from helpers.bench_tools import save_tiny

from laconic.errors import SpreadError
from laconic.serve.compression import Compression
from laconic.serve.config import Config, Model, Server, StoreSettings
from laconic.serve.replicas import Replicas

TEXT = "The code for falcon is 4815263. " * 8


def installed():
    try:
        return bool(version("ray"))
    except PackageNotFoundError:
        return False


needs_ray = pytest.mark.skipif(not installed(), reason="Ray is not installed here, see `make ray`")


def config(path, store, port=0):
    presets = {"half": Compression.of({"method": "keydiff", "keep": 0.5}, "preset.half", trusted=True)}
    model = Model("tiny", path=str(path), default_preset="half", threads=1)
    return Config((model,), presets, Server(port=port), store=StoreSettings(dir=str(store), min_free=0))


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SpreadError, match=r"pip install 'laconic-transformers\[ray\]'"):
        Replicas(config(tmp_path, tmp_path), 2)


@pytest.mark.slow
@needs_ray
def test_two_replicas_share_contexts(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = config(save_tiny(tmp_path / "tiny"), tmp_path / "store", port)
    with Replicas(settings, 2) as running, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        assert running.config.store.shared
        running.wait()
        body = {"model": "tiny", "text": TEXT, "wait": 30}
        made = client.post("/v1/contexts", json=body).json()
        assert made["status"] == "ready", made
        ask = {"model": f"tiny@{made['id']}", "messages": [{"role": "user", "content": "falcon?"}], "max_tokens": 4}
        answers, replicas = set(), set()
        for _ in range(12):  # a new connection each time: the proxy spreads requests, not connections
            answer = client.post("/v1/chat/completions", json={**ask, "temperature": 0})
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found["usage"]["prompt_tokens_details"]["cached_tokens"] == made["tokens"]["original"]
            answers.add(found["choices"][0]["message"]["content"])
            replicas.add(client.get("/metrics").text.count("laconic_http_requests_total"))
        assert len(answers) == 1
        assert all(client.get(f"/v1/contexts/{made['id']}").json()["id"] == made["id"] for _ in range(8))
        with client.stream("POST", "/v1/chat/completions", json={**ask, "stream": True}) as response:
            lines = [line for line in response.iter_lines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]" and len(lines) > 2
        assert client.delete(f"/v1/contexts/{made['id']}").json()["deleted"]
        assert all(client.get(f"/v1/contexts/{made['id']}").status_code == 404 for _ in range(8))
        assert client.post("/v1/chat/completions", json={"model": "none", "messages": []}).status_code in (400, 404)
