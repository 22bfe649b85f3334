"""Mutated requests to every route: a documented status, the error object, no fault of ours, and a worker that lives."""

import copy
import json
import random

import httpx
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

from laconic.serve.compression import Compression
from laconic.serve.config import Config, Limits, Model, StoreSettings
from laconic.serve.refusal import KINDS

CHAT = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
    ],
    "max_tokens": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 1,
    "stop": ["x"],
    "n": 1,
    "logit_bias": {"5": 1.0},
    "logprobs": True,
    "top_logprobs": 1,
    "stream": False,
    "metadata": {"a": "b"},
    "laconic": {"compress": {"method": "keydiff", "keep": 0.5, "parameters": {}, "protect": [0, 2]}, "deadline_s": 60},
}
CUT = [{"type": "text", "text": "The code.", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}]
CACHED = {"prompt_cache_key": "k", "prompt_cache_options": {"mode": "explicit", "ttl": "30m"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
BODIES = [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}),
    ("POST", "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": [IMAGE]}], "max_tokens": 1}),
    (
        "POST",
        "/v1/chat/completions",
        {"model": "tiny:half", "messages": [{"role": "user", "content": CUT}], "max_tokens": 1, **CACHED},
    ),
    ("POST", "/v1/completions", {"model": "tiny:half", "prompt": "The code", "max_tokens": 1, "logprobs": 1}),
    (
        "POST",
        "/v1/contexts",
        {"model": "tiny", "text": "The code.", "ttl": "300s", "metadata": {}, "pinned": False, "wait": 0},
    ),
    ("POST", "/v1/contexts", {"model": "tiny", "messages": [{"role": "user", "content": "Hello."}], "preset": "half"}),
    ("PATCH", "/v1/contexts/ctx_" + "a" * 26, {"ttl": 5, "name": "x"}),
    (
        "POST",
        "/v1/responses",
        {"model": "tiny", "input": "Hello.", "max_output_tokens": 1, "temperature": 0.5, "stream": True},
    ),
    ("POST", "/v1/responses", {"model": "tiny", "input": [{"role": "user", "content": "Hello."}], "max_output_tokens": 1}),
    ("POST", "/v1/responses/compact", {"model": "tiny", "input": [{"role": "user", "content": "Hello."}], "laconic": {}}),
    ("POST", "/tokenize", {"model": "tiny", "prompt": "The code", "add_special_tokens": True}),
    ("POST", "/detokenize", {"model": "tiny", "tokens": [5, 6]}),
]
ODD = [None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308, 5e-324, "", "x", "\u0000", "../../etc/passwd"]
ODD += ["%2f", "\U0001f600" * 9, "ctx_" + "a" * 26, "tiny@ctx_" + "b" * 26, "a" * 5000, [], {}, [[]], [{}], {"": ""}]
ODD += ["file:///etc/passwd", "http://127.0.0.1/", {"type": "text"}, {"__class__": "x"}, [1, "a", None], "keydiff", "adakv"]
PATHS = ["/v1/contexts/..", "/v1/contexts/%00", "/v1/contexts/%2e%2e%2f", "/v1/contexts/" + "a" * 900, "/v1/models/%ff"]
PATHS += ["/v1/contexts?limit=%00", "/v1/contexts?after=../x", "/v1/contexts//kept", "//v1/models", "/v1/contexts?order[]=1"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    config = Config(
        models=(Model("tiny", path=str(save_tiny(tmp_path_factory.mktemp("model"))), max_context=200, max_queue=64),),
        presets={"half": Compression.of({"method": "keydiff", "keep": 0.5}, "preset.half", trusted=True)},
        store=StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0),
        limits=Limits(quota_builds=1000, quota_contexts=100_000),
    )
    with running(config, in_thread(real_worker)) as (found, house):
        yield found
        assert house.schedulers["tiny"].backend.restarts == 0


def places(value, path=()):
    """Every place in a body, as a path."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(drawn, body):
    """A body with one to three changes."""
    body = copy.deepcopy(body)
    for _ in range(drawn.randint(1, 3)):
        paths = [path for path in places(body) if path]
        if not paths:
            return {"x": drawn.choice(ODD)}
        path = drawn.choice(paths)
        holder = body
        for key in path[:-1]:
            holder = holder[key]
        kind = drawn.randrange(4)
        if kind == 0:
            del holder[path[-1]]
        elif kind == 1:
            holder[path[-1]] = [holder[path[-1]]]
        elif kind == 2 and isinstance(holder, dict):
            holder[drawn.choice(["x", "tools", "audio", "store", "model", "", "n" * 300])] = drawn.choice(ODD)
        else:
            holder[path[-1]] = drawn.choice(ODD)
    return body


def spoiled(drawn, data):
    """Bytes that are cut, flipped, or hold what JSON escapes can hold and text cannot."""
    kind = drawn.randrange(6)
    at = drawn.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ (1 << drawn.randrange(8))]) + data[at + 1 :]
    if kind == 2:
        return data.replace(b"code", b"\\ud800").replace(b"Hello", b"\\udfff")
    if kind == 3:
        return data.replace(b"0.5", drawn.choice([b"NaN", b"Infinity", b"1e999", b"9" * 5000]))
    if kind == 4:
        return b"[" * 2000 + data
    return data


def check(response):
    status = response.status_code
    assert status in (200, 201, 202, *KINDS) and status < 500, (status, response.text[:300])
    if status >= 400:
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == KINDS[status] and error["code"]
    assert response.headers["x-request-id"]


def fuzz(address, seed, count):
    drawn = random.Random(seed)
    seen = {}
    with httpx.Client(base_url=address, timeout=60) as client:
        for _ in range(count):
            if drawn.random() < 0.06:
                response = client.request(drawn.choice(["GET", "DELETE", "POST"]), drawn.choice(PATHS))
            else:
                method, path, body = drawn.choice(BODIES)
                data = spoiled(drawn, json.dumps(mutated(drawn, body)).encode())
                kind = drawn.choice(["application/json"] * 12 + ["text/plain", "multipart/form-data; boundary=x", "a/b;;;"])
                response = client.request(method, path, content=data, headers={"Content-Type": kind})
            check(response)
            seen[response.status_code] = seen.get(response.status_code, 0) + 1
        assert client.get("/readyz").status_code == 200
        alive = client.post("/v1/completions", json={"model": "tiny", "prompt": "The", "max_tokens": 1})
        assert alive.status_code == 200
    assert seen.get(200) and seen.get(400)


def test_three_hundred_mutated_requests(address):
    fuzz(address, 0, 300)


@pytest.mark.slow
def test_two_thousand_mutated_requests(address):
    fuzz(address, 1, 2000)
