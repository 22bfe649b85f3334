"""Images through the server, on the shipped model that sees: the library's own answers, honest usage, and refusals."""

import base64
import struct
import zlib

import httpx
import openai
import pytest
from helpers.image_files import noise, saved
from helpers.serving import in_thread, real_worker, running

import laconic
from laconic.engine.engine import Engine, Request
from laconic.serve.compression import Compression
from laconic.serve.config import Config, Model, StoreSettings

QUESTION = "What does the white sign say?"
MODEL = "testbed/vlm"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    presets = {"quarter": Compression.of({"method": "visionzip", "keep": 0.25}, "preset.quarter", trusted=True)}
    store = StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0)
    with running(Config((Model(MODEL),), presets, store=store), in_thread(real_worker), []) as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def engine():
    return Engine(*laconic.load(MODEL))


def url(data, kind="png"):
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}}


def asked(*images):
    return [{"role": "user", "content": [*images, {"type": "text", "text": QUESTION}]}]


@pytest.mark.parametrize(("name", "methods"), [(MODEL, []), (f"{MODEL}:quarter", ["visionzip:keep=0.25"])])
@pytest.mark.parametrize("count", [1, 2])
def test_answers_are_the_librarys(client, engine, name, methods, count):
    images = [noise(96, 96, i) for i in range(count)]
    wanted = engine.answer(Request(question=QUESTION, images=images, methods=methods, max_new_tokens=8))
    options = {
        "model": name,
        "messages": asked(*(url(saved(image, "PNG")) for image in images)),
        "max_tokens": 8,
        "temperature": 0,
    }
    found = client.chat.completions.create(**options)
    assert found.choices[0].message.content.strip() == wanted.text.strip()
    usage = found.usage
    assert usage.prompt_tokens == wanted.prompt.tokens_in  # of the prompt as it was, nothing pruned
    assert usage.laconic["kv_bytes"] == wanted.prompt.kv_bytes
    assert usage.laconic["kv_bytes_full"] == wanted.prompt.kv_bytes_full
    if methods:
        assert usage.laconic["kv_bytes"] < 0.8 * usage.laconic["kv_bytes_full"]
    pieces = [c.choices[0].delta.content or "" for c in client.chat.completions.create(**options, stream=True) if c.choices]
    assert "".join(pieces) == found.choices[0].message.content


def bomb():
    """A PNG whose header says 60,000 x 60,000 pixels, in a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_what_is_no_image_is_refused_and_the_server_lives(address, client):
    whole = saved(noise(96, 96, 1), "PNG")
    bad = {
        "cut off": url(whole[:200]),
        "text": url(b"The code for falcon is 4815263."),
        "bomb": url(bomb()),
        "no base64": {"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}},
        "a path": {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        "an address": {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}},
    }
    for what, part in bad.items():
        answer = httpx.post(f"{address}/v1/chat/completions", json={"model": MODEL, "messages": asked(part)}, timeout=60)
        assert answer.status_code == 400, what
        assert answer.json()["error"]["code"] in ("invalid_image", "image_too_large", "image_url_not_allowed"), what
    many = {"model": MODEL, "messages": asked(*[url(saved(noise(8, 8, i), "PNG")) for i in range(17)])}
    assert httpx.post(f"{address}/v1/chat/completions", json=many, timeout=60).json()["error"]["code"] == "image_too_large"
    good = client.chat.completions.create(model=MODEL, messages=asked(url(whole)), max_tokens=2)
    assert good.usage.completion_tokens
