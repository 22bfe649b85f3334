"""A context over HTTP: vLLM's own server, started as a user starts it, with the connector in its engine's process."""

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from helpers.vllm_tools import TOKENS, needs_vllm

import laconic
from laconic.memory.store import SegmentStore
from laconic.shipped import model_path
from laconic.vllm import hand_over

pytestmark = [pytest.mark.slow, needs_vllm]
TEXT = "The code for falcon is 4815263. The code for heron is 99. " * 8
QUESTION = "What is the code for falcon?"


@pytest.fixture
def server(tmp_path):
    """(address, folder of the store) of a server that is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    transfer = {
        "kv_connector": "Connector",
        "kv_connector_module_path": "laconic.vllm.connector",
        "kv_role": "kv_consumer",
        "kv_connector_extra_config": {"store": str(tmp_path / "store")},
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model_path("testbed/lm"))]
    command += ["--served-model-name", "lm", "--dtype", "float32", "--max-model-len", "512", "--enforce-eager"]
    command += ["--no-enable-prefix-caching", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--kv-transfer-config", json.dumps(transfer)]
    own = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
        try:
            ends = time.monotonic() + 600
            while not ready(f"http://127.0.0.1:{port}"):
                assert process.poll() is None and time.monotonic() < ends, (tmp_path / "log").read_text()[-3000:]
                time.sleep(1)
            yield f"http://127.0.0.1:{port}", tmp_path / "store"
        finally:
            process.terminate()
            process.wait(60)


def ready(address):
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_context_is_asked_over_http(server):
    address, folder = server
    context = laconic.read(*laconic.load("testbed/lm"), TEXT, "keydiff:keep=0.3")
    made = hand_over(context, SegmentStore(folder))
    wanted = context.ask(QUESTION, max_new_tokens=TOKENS)
    ids = made.prompt_ids(context.prompt(QUESTION).question)
    body = {"model": "lm", "prompt": ids, "max_tokens": TOKENS, "temperature": 0}
    answer = httpx.post(f"{address}/v1/completions", json=body | {"kv_transfer_params": made.parameters}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"].strip() == wanted.text.strip()
    unknown = body | {"kv_transfer_params": {"laconic_context": "ctx_0000000000000000"}}
    refused = httpx.post(f"{address}/v1/completions", json=unknown, timeout=120)
    assert refused.status_code >= 400 or refused.json()["choices"][0]["finish_reason"] == "error"
    again = httpx.post(f"{address}/v1/completions", json=body | {"kv_transfer_params": made.parameters}, timeout=120)
    assert again.json()["choices"][0]["text"] == answer.json()["choices"][0]["text"]
