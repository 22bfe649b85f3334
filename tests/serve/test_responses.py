"""The Responses API with the real `openai` client: the object, the events, and compactions that stand for contexts."""

import json

import httpx
import openai
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

from laconic.serve.compression import Compression
from laconic.serve.config import Config, Model, StoreSettings
from laconic.serve.keys import add_key

HTTP = httpx.Client(timeout=60)  # a busy machine takes its time

REQUIRED = {
    "id",
    "object",
    "created_at",
    "completed_at",
    "status",
    "incomplete_details",
    "model",
    "previous_response_id",
    "instructions",
    "output",
    "error",
    "tools",
    "tool_choice",
    "truncation",
    "parallel_tool_calls",
    "text",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "top_logprobs",
    "temperature",
    "reasoning",
    "user",
    "usage",
    "max_output_tokens",
    "max_tool_calls",
    "store",
    "background",
    "service_tier",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
}
TEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 5
QUESTION = "What is the code for falcon?"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    keys = [add_key(path, name) for name in ("alice", "bob")]
    config = Config(
        models=(Model("tiny", path=str(save_tiny(tmp_path_factory.mktemp("model"))), default_preset="all"),),
        presets={"all": Compression.of({"method": "keydiff", "keep": 1.0}, "preset.all", trusted=True)},
        store=StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0),
        key_file=path,
    )
    with running(config, in_thread(real_worker)) as (address, _):
        yield address, keys


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served[0]}/v1", api_key=served[1][0], max_retries=0, timeout=60)


def respond(client, given=QUESTION, **more):
    return client.responses.create(**{"model": "tiny", "input": given, "temperature": 0, "max_output_tokens": 8, **more})


def test_a_response_is_the_chat_s_answer(client):
    got = respond(client, instructions="Be brief.", metadata={"a": "b"})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=8)
    assert got.output_text == chat.choices[0].message.content
    assert got.usage.input_tokens == chat.usage.prompt_tokens and got.usage.output_tokens == 8
    assert got.status == "incomplete" and got.incomplete_details.reason == "max_output_tokens"
    assert got.metadata == {"a": "b"} and got.instructions == "Be brief."


def test_it_has_every_key(served):
    body = {"model": "tiny", "input": QUESTION, "max_output_tokens": 2, "store": True}
    headers = {"Authorization": f"Bearer {served[1][0]}"}
    found = HTTP.post(f"{served[0]}/v1/responses", json=body, headers=headers).json()
    assert set(found) >= REQUIRED and found["store"] is False and found["laconic"]["ignored"] == ["store"]


def test_events_come_in_order_and_tell_the_same_answer(client):
    events = list(respond(client, stream=True))
    kinds = [event.type.removeprefix("response.") for event in events]
    deltas = [kind for kind in kinds if kind == "output_text.delta"]
    head = ["created", "in_progress", "output_item.added", "content_part.added"]
    tail = ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert deltas and kinds == [*head, *deltas, *tail]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = respond(client)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text == events[-4].text == events[-1].response.output_text
    assert events[-1].response.usage == whole.usage


def test_several_turns(client):
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": TEXT}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Noted."}]},
        {"role": "user", "content": QUESTION},
    ]
    got = respond(client, items)
    messages = [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": QUESTION},
    ]
    chat = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=8)
    assert got.output_text == chat.choices[0].message.content


def test_a_compaction_stands_for_what_it_was_made_of(client):
    turns = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Noted."}]
    compacted = client.responses.compact(model="tiny", input=turns)
    assert compacted.object == "response.compaction" and compacted.usage.output_tokens == 0
    written = compacted.usage.input_tokens
    assert compacted.usage.input_tokens_details.cache_write_tokens == written
    again = client.responses.compact(model="tiny", input=turns)
    assert again.usage.input_tokens_details.cached_tokens == written
    assert again.usage.input_tokens_details.cache_write_tokens == 0
    items = [item.model_dump() for item in compacted.output]
    got = respond(client, [*items, {"role": "user", "content": QUESTION}])
    whole = respond(client, [*turns, {"role": "user", "content": QUESTION}])
    assert got.output_text == whole.output_text  # keep=1.0: nothing was removed
    assert got.usage.input_tokens == whole.usage.input_tokens
    assert got.usage.input_tokens_details.cached_tokens == written


def test_forged_foreign_and_misplaced_compactions_are_refused(served, client):
    item = client.responses.compact(model="tiny", input=TEXT).output[0].model_dump()
    other = openai.OpenAI(base_url=f"{served[0]}/v1", api_key=served[1][1], max_retries=0)
    ask = {"role": "user", "content": QUESTION}
    seal = item["encrypted_content"]
    changed = ("A" if seal[5] != "A" else "B").join((seal[:5], seal[6:]))
    cases = [
        (other, [item, ask]),
        (client, [{**item, "encrypted_content": changed}, ask]),
        (client, [{**item, "encrypted_content": "é"}, ask]),
        (client, [{**item, "encrypted_content": ""}, ask]),
        (client, [ask, item]),
        (client, [item]),
    ]
    for who, given in cases:
        with pytest.raises(openai.BadRequestError) as caught:
            respond(who, given)
        assert caught.value.code == "invalid_value"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported_parameter"),
        ({"background": True}, "unsupported_parameter"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "unsupported_parameter"),
        ({"truncation": "auto"}, "unsupported_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "unsupported_parameter"),
        ({"input": []}, "invalid_value"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "unsupported_parameter"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "unsupported_parameter"),
        ({"temperature": 9}, "invalid_value"),
    ],
)
def test_what_is_not_supported_is_refused(served, change, code):
    body = {"model": "tiny", "input": QUESTION, **change}
    response = HTTP.post(f"{served[0]}/v1/responses", json=body, headers={"Authorization": f"Bearer {served[1][0]}"})
    assert response.status_code == 400 and json.loads(response.text)["error"]["code"] == code
