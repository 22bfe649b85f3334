"""The real `openai` client against a server over the loopback: what it parses, streams, retries and raises."""

import asyncio
import gc
import json
import time

import httpx
import openai
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

import laconic
from laconic.engine.engine import Engine, Request
from laconic.method import create_method, list_methods
from laconic.prompts.text import Prompt
from laconic.serve.compression import Compression
from laconic.serve.config import Config, Model, StoreSettings
from laconic.serve.front.tickets import Ticket

HTTP = httpx.Client(timeout=60)  # a busy machine takes its time

ASK = [{"role": "user", "content": "What is the code for falcon?"}]
LONG = [{"role": "user", "content": "The code for falcon is 4815263. " * 12 + "\n\nQuestion: What is the code for falcon?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder):
    return Engine(*laconic.load(str(folder)))


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    presets = {"half": Compression.of({"method": "keydiff", "keep": 0.5}, "preset.half", trusted=True)}
    config = Config(
        models=(Model("tiny", path=str(folder), default_preset="half"),),
        presets=presets,
        store=StoreSettings(dir=str(tmp_path_factory.mktemp("store"))),
    )
    log = []
    with running(config, in_thread(real_worker), log) as (address, house):
        house.log = log
        yield address, house


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, timeout=60)


def in_view(engine, messages, methods=(), tokens=8):
    ids = engine.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = engine.tokenizer.encode(ids, add_special_tokens=False)
    return engine.answer(Request(prompt=Prompt([], ids, True, ""), methods=methods, max_new_tokens=tokens)), ids


def test_models_and_presets_are_listed(client):
    found = client.models.list().data
    assert [one.id for one in found] == ["tiny", "tiny:half"]
    assert found[0].laconic["max_context"] == 2048 and found[0].laconic["presets"]["half"]["budget"] == {"keep": 0.5}
    assert client.models.retrieve("tiny:half").id == "tiny:half"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_the_catalogue_says_what_goes_on_and_what_shares_a_batch(served):
    found = {one["name"]: one for one in HTTP.get(f"{served[0]}/v1/methods").json()["data"]}
    for entry in list_methods():
        one = found[entry.name]
        assert (one["reuse"], one["batch"]) == (entry.cls.reuse, not (entry.cls.uneven or entry.cls.packs)), entry.name
    assert [found[name]["reuse"] for name in ("kivi", "keydiff", "llmlingua2")] == ["exact", "continue", "refused"]
    assert not found["kivi"]["batch"] and found["keydiff"]["batch"]


@pytest.mark.parametrize("name", ["tiny", "tiny:half"])
def test_a_chat_is_answered_as_the_library_answers(client, engine, name):
    methods = [] if name == "tiny" else [create_method("keydiff:keep=0.5")]
    want, ids = in_view(engine, LONG, methods)
    got = client.chat.completions.create(model=name, messages=LONG, temperature=0, max_tokens=8)
    assert got.choices[0].message.content == want.text and got.choices[0].finish_reason == "length"
    usage = got.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (len(ids), 8, len(ids) + 8)
    assert usage.prompt_tokens_details.cached_tokens == 0
    assert usage.laconic["original_tokens"] == len(ids)
    assert usage.laconic["kv_bytes"] == want.prompt.kv_bytes and usage.laconic["kv_bytes_full"] == want.prompt.kv_bytes_full
    kept = sum(want.prompt.entries) / len(want.prompt.entries)
    assert usage.laconic["kept_tokens"] == pytest.approx(kept, abs=0.01)
    about = got.laconic
    assert about["method"] == (None if name == "tiny" else "keydiff") and about["cache"] == "none" and about["batch"] == 1


def test_a_stream_is_the_same_answer(client):
    options = {"model": "tiny", "messages": LONG, "temperature": 0, "max_tokens": 8}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-2].choices[0].finish_reason == "length"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_the_bytes_of_a_stream(served):
    body = {"model": "tiny", "messages": ASK, "temperature": 0, "max_tokens": 3, "stream": True}
    with HTTP.stream("POST", f"{served[0]}/v1/chat/completions", json=body) as response:
        raw = b"".join(response.iter_bytes()).decode()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store" and response.headers["x-accel-buffering"] == "no"
    lines = raw.split("\n\n")
    assert lines[-1] == "" and lines[-2] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines[:-1])
    assert json.loads(lines[0][6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_several_answers_have_seeds_of_their_own(client):
    options = {"model": "tiny", "messages": ASK, "max_tokens": 12, "n": 3, "seed": 5}
    got = client.chat.completions.create(**options)
    texts = [choice.message.content for choice in got.choices]
    assert [choice.index for choice in got.choices] == [0, 1, 2] and len(set(texts)) > 1
    assert got.usage.completion_tokens == 36
    again = client.chat.completions.create(**options)
    assert [choice.message.content for choice in again.choices] == texts
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == texts


def test_log_probabilities(client):
    got = client.chat.completions.create(
        model="tiny", messages=ASK, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2
    )
    told = got.choices[0].logprobs.content
    assert len(told) == 4 and all(len(one.top_logprobs) == 2 for one in told)
    assert all(one.logprob == one.top_logprobs[0].logprob for one in told)


def test_completions(client, engine):
    got = client.completions.create(model="tiny", prompt="The code for", temperature=0, max_tokens=6, logprobs=1)
    ids = engine.tokenizer.encode("The code for")
    want = engine.answer(Request(prompt=Prompt([], ids, False, ""), methods=(), max_new_tokens=6))
    assert got.choices[0].text == want.text and got.usage.prompt_tokens == len(ids)
    assert len(got.choices[0].logprobs.tokens) == 6
    same = client.completions.create(model="tiny", prompt=ids, temperature=0, max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in same) == want.text


def test_a_stop_string_ends_the_answer(client):
    whole = client.completions.create(model="tiny", prompt="The code for", temperature=0, max_tokens=12).choices[0].text
    stop = whole[6:9]
    got = client.completions.create(model="tiny", prompt="The code for", temperature=0, max_tokens=12, stop=stop)
    assert got.choices[0].text == whole[: whole.index(stop)] and got.choices[0].finish_reason == "stop"


def test_tokens(served, engine):
    ids = HTTP.post(f"{served[0]}/tokenize", json={"model": "tiny", "prompt": "The code"}).json()
    assert ids == {"tokens": engine.tokenizer.encode("The code"), "count": len(engine.tokenizer.encode("The code"))}
    chat = HTTP.post(f"{served[0]}/tokenize", json={"model": "tiny", "messages": ASK}).json()
    assert chat["tokens"] == in_view(engine, ASK, tokens=1)[1]
    text = HTTP.post(f"{served[0]}/detokenize", json={"model": "tiny", "tokens": ids["tokens"]}).json()
    assert text == {"prompt": engine.tokenizer.decode(ids["tokens"])}


def test_requests_at_once_are_answered_in_one_batch_as_each_alone(served, client):
    questions = [f"What is the code for {bird}?" for bird in ("falcon", "heron", "crane", "owl")]

    async def together():
        async with openai.AsyncOpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0) as some:
            ask = some.chat.completions.create
            jobs = [
                ask(model="tiny", messages=[{"role": "user", "content": q}], temperature=0, max_tokens=8) for q in questions
            ]
            return await asyncio.gather(*jobs)

    got = asyncio.run(together())
    assert max(one.laconic["batch"] for one in got) > 1
    for question, one in zip(questions, got, strict=True):
        ask = [{"role": "user", "content": question}]
        alone = client.chat.completions.create(model="tiny", messages=ask, temperature=0, max_tokens=8)
        assert one.choices[0].message.content == alone.choices[0].message.content
        assert one.usage == alone.usage


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "none"}, "model_not_found", "model"),
        ({"messages": []}, "invalid_value", "messages"),
        ({"temperature": 3}, "invalid_value", "temperature"),
        ({"temprature": 1}, "unknown_parameter", "temprature"),
        ({"tools": [{"type": "function"}]}, "unsupported_parameter", "tools"),
        ({"response_format": {"type": "json_object"}}, "unsupported_parameter", "response_format"),
        ({"max_tokens": 5000}, "context_length_exceeded", "messages"),
        ({"laconic": {"compress": {"method": "nothing"}}}, "invalid_value", None),
        ({"laconic": {"compress": {"method": "keydiff", "keep": 2}}}, "budget_error", "laconic.compress"),
        ({"laconic": {"compress": {"method": "fastkv", "parameters": {"artifact": "/etc/passwd"}}}}, "invalid_value", None),
        ({"laconic": {"presett": "half"}}, "unknown_parameter", "laconic.presett"),
        ({"model": "tiny:half", "laconic": {"preset": "half"}}, "invalid_value", "laconic"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unsupported_parameter", "messages[0].role"),
        ({"logit_bias": {"x": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"999999": 1}}, "invalid_value", "logit_bias"),
    ],
)
def test_errors_say_what_is_wrong(served, change, code, param):
    body = {"model": "tiny", "messages": ASK, **change}
    response = HTTP.post(f"{served[0]}/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"] == code
    assert response.status_code == (404 if code == "model_not_found" else 400)
    assert param is None or error["param"] == param


def test_fields_without_effect_are_named(client):
    got = client.chat.completions.create(
        model="tiny", messages=ASK, max_tokens=2, user="me", store=True, metadata={"a": "b"}, extra_body={"verbosity": "low"}
    )
    assert set(got.laconic["ignored"]) == {"user", "store", "verbosity"} and got.metadata == {"a": "b"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
    ],
)
def test_other_routes_answer_with_the_error_object(served, method, path, status, code):
    response = HTTP.request(method, served[0] + path)
    assert response.status_code == status and response.json()["error"]["code"] == code


def test_a_request_keeps_its_id(served):
    response = HTTP.get(f"{served[0]}/version", headers={"X-Request-Id": "abc-1.2"})
    assert response.headers["x-request-id"] == "abc-1.2" and response.json() == {"version": laconic.__version__}
    replaced = HTTP.get(f"{served[0]}/version", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert replaced.startswith("req-")


def test_a_client_that_leaves_frees_the_worker(served, client):
    body = {"model": "tiny", "messages": ASK, "temperature": 0, "stream": True, "logit_bias": {"2": -100}}
    with HTTP.stream("POST", f"{served[0]}/v1/chat/completions", json=body) as response:
        next(response.iter_lines())
    scheduler, ends = served[1].schedulers["tiny"], time.monotonic() + 5
    client.chat.completions.create(model="tiny", messages=ASK, max_tokens=2)
    while scheduler.running and time.monotonic() < ends:
        time.sleep(0.01)
    assert not scheduler.running and not len(scheduler.waiting)
    left = [record for record in served[1].log if record["status"] == 499]
    assert left and 0 < left[-1]["completion_tokens"] < 2000


def test_nothing_of_a_request_s_text_is_logged_or_counted(served):
    marker = "zebra-marker-7391"
    for body in (
        {"model": "tiny", "messages": [{"role": "user", "content": marker}], "max_tokens": 2},
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": marker}],
            "max_tokens": 2,
            "user": marker,
            "stream": True,
        },
        {"model": "tiny", "messages": [{"role": marker, "content": marker}]},
        {"model": "tiny", "messages": [{"role": "user", "content": marker * 400}]},
        {"model": "tiny", "prompt": marker},
        {"model": marker, "messages": ASK},
        {"model": "tiny", "messages": ASK, "laconic": {"compress": {"method": "random", "protect": [marker]}}},
    ):
        response = HTTP.post(f"{served[0]}/v1/chat/completions", json=body)
        if response.status_code >= 400:
            assert marker not in response.text.replace(f"'{marker}'", "")
    shown = json.dumps(served[1].log) + HTTP.get(f"{served[0]}/metrics").text
    assert marker not in shown


def test_the_metrics_add_up(served, client):
    def total(name):
        lines = HTTP.get(f"{served[0]}/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}_total{{"))

    names = "laconic_prompt_tokens", "laconic_generation_tokens"
    before = [total(name) for name in names]
    got = client.chat.completions.create(model="tiny", messages=ASK, max_tokens=3, n=2)
    assert [total(name) - was for name, was in zip(names, before, strict=True)] == [
        got.usage.prompt_tokens,
        got.usage.completion_tokens,
    ]


@pytest.mark.slow
def test_nothing_is_kept_of_an_answered_request(client):
    """Not until its deadline either: a timer that waited for that would hold its prompt and answer."""
    others = {id(x) for x in gc.get_objects() if isinstance(x, Ticket)}  # of tests that ran in this process before
    client.chat.completions.create(model="tiny", messages=ASK, max_tokens=2)
    ends = time.monotonic() + 20
    while left := [x for x in gc.get_objects() if isinstance(x, Ticket) and id(x) not in others]:
        assert time.monotonic() < ends, left
        del left
        time.sleep(0.1)
        gc.collect()
