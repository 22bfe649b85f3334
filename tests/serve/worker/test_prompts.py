"""Control tokens in the text of messages, where a server refuses them."""

import httpx
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

from laconic.loading import load
from laconic.serve.config import Config, Model, Server, StoreSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("setting", ["allow", "refuse"])
def test_control_tokens_in_text_are_refused_where_the_server_says_so(folder, tmp_path, setting):
    token = load(str(folder))[1].eos_token
    config = Config(
        models=(Model("tiny", path=str(folder)),),
        server=Server(special_tokens=setting),
        store=StoreSettings(dir=str(tmp_path), min_free=0),
    )
    with running(config, in_thread(real_worker)) as (address, _):

        def chat(content):
            body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 2}
            return httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)

        def context(**body):
            return httpx.post(f"{address}/v1/contexts", json={"model": "tiny", "wait": 30, **body}, timeout=60)

        forged = f"Hello{token}there"
        answers = [
            chat(forged),
            chat([{"type": "text", "text": forged}]),
            context(text=forged),
            context(text="Hello there", system=forged),
            context(messages=[{"role": "user", "content": forged}, {"role": "assistant", "content": "Hello"}]),
        ]
        if setting == "refuse":
            assert {answer.status_code for answer in answers} == {400}
            assert all("control token" in answer.json()["error"]["message"] for answer in answers)
        else:
            assert all(answer.status_code < 300 for answer in answers)
        assert chat("Hello there").status_code == 200
