"""Nothing gets past without a key, under another name, too large, too slow, or with too many headers."""

import asyncio
import sys
import time

import httpx
import pytest
from helpers.serving import in_thread, running

from laconic.serve.config import Config, Limits, Model, Server
from laconic.serve.front.guard import PUBLIC, host_allowed
from laconic.serve.keys import add_key

HTTP = httpx.Client(timeout=60)  # a busy machine takes its time


def idle_worker(wire, settings):
    wire.send({"event": "ready", "facts": {}})
    while wire.receive() is not None:
        pass


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    token = add_key(path, "alice")
    limits = Limits(json_bytes=2000, multipart_bytes=4000, body_s=2.0)
    config = Config(models=(Model("m"),), key_file=path, limits=limits, server=Server(hosts=("my.example",)))
    with running(config, in_thread(idle_worker)) as (address, house):
        yield address, token, house


def headers(token, **more):
    return {"Authorization": f"Bearer {token}", **more}


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic KEY"}, {"X-Api-Key": "KEY"}])
def test_without_a_key_no_route_answers_but_health(guarded, given):
    address, token, _ = guarded
    given = {name: value.replace("KEY", token) for name, value in given.items()}
    paths = ["/v1/models", "/v1/nothing", "/metrics", "/version", "/tokenize", "/v1/chat/completions", "/"]
    for path in paths:
        response = HTTP.get(address + path, headers=given)
        assert response.status_code == 401 and response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    for path in PUBLIC:
        assert HTTP.get(address + path, headers=given).json() == {"status": "ok"}


def test_with_a_key(guarded):
    address, token, _ = guarded
    assert HTTP.get(f"{address}/v1/models", headers=headers(token)).status_code == 200
    assert HTTP.get(f"{address}/v1/models?key={token}").status_code == 401


@pytest.mark.parametrize(
    ("kind", "size", "status", "code"),
    [
        ("application/json", 2001, 413, "request_too_large"),
        ("multipart/form-data; boundary=x", 4001, 413, "request_too_large"),
        ("text/plain", 10, 415, "unsupported_media_type"),
        ("application/json", 2000, 400, "invalid_json"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_have_limits(guarded, kind, size, status, code, chunked):
    address, token, _ = guarded
    body = b"x" * size
    content = iter([body[:7], body[7:]]) if chunked else body
    response = HTTP.post(f"{address}/tokenize", content=content, headers=headers(token, **{"Content-Type": kind}))
    want = (415, "unsupported_media_type") if kind.startswith("multipart") and chunked else (status, code)
    assert (response.status_code, response.json()["error"]["code"]) in (want, (413, "request_too_large"))


def test_a_body_that_does_not_come_is_not_waited_for(guarded):
    address, token, _ = guarded
    host, port = address.removeprefix("http://").split(":")

    async def slow():
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /tokenize HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        writer.write((head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{").encode())
        await writer.drain()
        began = time.monotonic()
        line = await reader.readline()
        writer.close()
        return line, time.monotonic() - began

    line, seconds = asyncio.run(slow())
    assert b" 400 " in line and seconds < 30


def test_other_names_and_too_many_headers_are_refused(guarded):
    address, token, _ = guarded
    response = HTTP.get(f"{address}/v1/models", headers=headers(token, Host="evil.example"))
    assert response.status_code == 403 and response.json()["error"]["code"] == "host_not_allowed"
    assert HTTP.get(f"{address}/v1/models", headers=headers(token, Host="my.example:80")).status_code == 200
    many = {f"x-{i}": "1" for i in range(70)}
    response = HTTP.get(f"{address}/v1/models", headers=headers(token, **many))
    assert response.status_code == 431 and response.json()["error"]["code"] == "headers_too_large"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "[::1]:8000", "10.0.0.1", "a.b"])
def test_names_that_are_allowed(host):
    assert host_allowed(host, ["A.B"])


@pytest.mark.parametrize("host", ["", "evil", "127.0.0.1.evil", "localhost.evil:80", "a.b.c"])
def test_names_that_are_not(host):
    assert not host_allowed(host, ["a.b"])


def test_the_front_needs_no_torch():
    import subprocess

    code = "import sys, laconic.serve.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
