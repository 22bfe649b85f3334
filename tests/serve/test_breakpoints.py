"""Prompt-cache breakpoints with the real `openai` client: made once, hit again, answered as the library answers."""

import json
import threading
import time

import httpx
import openai
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

import laconic
from laconic.engine.engine import Engine, Request
from laconic.method import create_method
from laconic.prompts.text import JOINT, Prompt
from laconic.serve.compression import Compression
from laconic.serve.config import Config, Limits, Model, StoreSettings
from laconic.serve.front.scheduler import overdue
from laconic.serve.keys import add_key
from laconic.serve.refusal import Refusal

TEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
QUESTIONS = ("What is the code for falcon?", "And heron?", "Which birds are there?")
HERE = {"mode": "explicit"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder):
    return Engine(*laconic.load(str(folder)))


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """A server with two keys -> (openai clients by name, its `House`, its log)."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    tokens = {name: add_key(path, name) for name in ("alice", "bob")}
    presets = {
        "half": Compression.of({"method": "keydiff", "keep": 0.5}, "preset.half", trusted=True),
        "third": Compression.of({"method": "keydiff", "keep": 0.3}, "preset.third", trusted=True),
    }
    config = Config(
        models=(Model("tiny", path=str(folder), default_preset="half"), Model("plain", path=str(folder))),
        presets=presets,
        store=StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0, max_ttl=20_000),
        limits=Limits(quota_builds=50, quota_contexts=60),
        key_file=path,
    )
    log = []
    with running(config, in_thread(real_worker), log) as (address, house):
        clients = {
            name: openai.OpenAI(base_url=f"{address}/v1", api_key=token, max_retries=0, timeout=60)
            for name, token in tokens.items()
        }
        yield clients, house, log


@pytest.fixture(scope="module")
def client(made):
    return made[0]["alice"]


def part(text, marked=True, **more):
    return {"type": "text", "text": text, **({"prompt_cache_breakpoint": {**HERE, **more}} if marked else {})}


def about(text, question=QUESTIONS[0]):
    """A document up to a breakpoint, and a question in the same message."""
    return [{"role": "user", "content": [part(text), part(JOINT + question, False)]}]


def ask(client, messages, model="tiny", **more):
    return client.chat.completions.create(
        **{"model": model, "messages": messages, "temperature": 0, "max_tokens": 8, **more}
    )


def later(engine, messages, cut, methods=("keydiff:keep=0.5",)):
    """The library's answer where the first `cut` tokens are compressed before the others are known -> with all ids."""
    shown = [{**m, "content": m["content"] if isinstance(m["content"], str) else joined(m["content"])} for m in messages]
    text = engine.tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    request = Request(
        prompt=Prompt(ids[:cut], ids[cut:], True, ""),
        methods=[create_method(spec) for spec in methods],
        mode="later",
        max_new_tokens=8,
    )
    return engine.answer(request), ids


def joined(parts):
    return "".join(one["text"] for one in parts)


def counts(got):
    details = got.usage.prompt_tokens_details
    assert details.cached_tokens + details.cache_write_tokens <= got.usage.prompt_tokens
    assert 0 in (details.cached_tokens, details.cache_write_tokens)
    assert got.usage.laconic["kept_tokens"] <= got.usage.laconic["original_tokens"] == got.usage.prompt_tokens
    assert got.usage.total_tokens == got.usage.prompt_tokens + got.usage.completion_tokens
    assert got.laconic["cache"] == ("hit" if details.cached_tokens else "write" if details.cache_write_tokens else "none")
    return details.cached_tokens, details.cache_write_tokens


def error(call, *args, **more):
    with pytest.raises(openai.APIStatusError) as caught:
        call(*args, **more)
    return caught.value


def test_the_first_request_writes_and_the_others_hit(client, engine):
    reference = laconic.read(engine.model, engine.tokenizer, TEXT, "keydiff:keep=0.5")
    names = set()
    for i, question in enumerate((*QUESTIONS, QUESTIONS[0])):
        got, want = ask(client, about(TEXT, question)), reference.ask(question, max_new_tokens=8)
        assert got.choices[0].message.content == want.text
        assert got.usage.prompt_tokens == reference.prompt(question).tokens
        assert got.usage.laconic["kv_bytes"] == want.prompt.kv_bytes
        assert counts(got) == ((0, len(reference.ids)) if i == 0 else (len(reference.ids), 0))
        assert got.laconic["method"] == "keydiff" and got.laconic["ignored"] == []
        names.add(got.laconic["context"])
    assert len(names) == 1
    assert 0 < got.usage.laconic["kept_tokens"] < got.usage.prompt_tokens


def test_the_context_is_that_of_the_same_text(client):
    """Made by the resource, hit by a breakpoint; made by a breakpoint, asked by its id."""
    body = {"model": "tiny", "text": TEXT + "Resource.", "wait": 30}
    record = client.post("/contexts", cast_to=object, body=body)
    got = ask(client, about(TEXT + "Resource."))
    assert got.laconic["context"] == record["id"] and counts(got) == (record["tokens"]["original"], 0)
    named = ask(client, [{"role": "user", "content": QUESTIONS[0]}], model=f"tiny@{record['id']}")
    assert named.choices == got.choices and named.usage == got.usage


TURNS = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Noted."}]
SYSTEM = {"role": "system", "content": "Be brief."}
LAST = {"role": "user", "content": QUESTIONS[1]}


@pytest.mark.parametrize(
    "messages",
    [
        [SYSTEM, *about(TEXT)],
        [*TURNS, *about("The code for owl is 7.")],
        [{"role": "user", "content": [part(TEXT)]}, TURNS[1], LAST],
        [{"role": "system", "content": [part(TEXT)]}, LAST],
        [{"role": "system", "content": [part(TEXT), part(" Be kind.", False)]}, LAST],
        [TURNS[0], {"role": "assistant", "content": [part("Noted.")]}, LAST],
        [*TURNS, {"role": "user", "content": [part(QUESTIONS[0])]}],
        [{"role": "user", "content": [part("The code "), part(TEXT), part(QUESTIONS[0], False)]}],
        [{"role": "user", "content": [part("The code for fal"), part("con is 5.", False)]}],
    ],
    ids=["system", "turns", "user", "whole system", "part of system", "assistant", "all", "two", "within a word"],
)
def test_wherever_it_stands_the_answer_is_the_library_s(client, engine, messages, request):
    first, again = (ask(client, messages, prompt_cache_key=request.node.name) for _ in range(2))
    written = counts(first)[1]
    assert written and counts(again) == (written, 0) and again.choices == first.choices
    want, ids = later(engine, messages, written)
    assert first.choices[0].message.content == want.text and first.usage.prompt_tokens == len(ids)
    assert first.usage.laconic["kv_bytes"] == want.prompt.kv_bytes
    contents = [joined(m["content"]) if not isinstance(m["content"], str) else m["content"] for m in messages]
    marked = [
        (i, joined(m["content"][: k + 1]))
        for i, m in enumerate(messages)
        if not isinstance(m["content"], str)
        for k, one in enumerate(m["content"])
        if "prompt_cache_breakpoint" in one
    ]
    message, text = marked[-1]
    read = engine.tokenizer.decode(ids[:written])
    if text != "The code for fal":  # a token that reaches beyond the breakpoint belongs to the question
        assert read.rstrip().endswith(text.rstrip())
    assert all(one in read for one in contents[:message]) and not any(one in read for one in contents[message + 1 :])


@pytest.mark.parametrize("messages", [[*TURNS, *about("The code for owl is 7.")], [SYSTEM, *about(TEXT)]])
def test_it_can_be_asked_by_its_id_later(client, messages):
    name = ask(client, messages).laconic["context"]
    named = ask(client, [{"role": "user", "content": QUESTIONS[0]}], extra_body={"laconic": {"context": name}})
    assert named.choices == ask(client, messages).choices and named.laconic["cache"] == "hit"


def test_another_ending_of_the_prefix_is_another_context(client):
    one, other = ask(client, about(TEXT)), ask(client, about(TEXT + "The code for owl is 7."))
    assert one.laconic["context"] != other.laconic["context"]


def test_a_stream_tells_the_same(client):
    messages = about(TEXT + "Streamed.")
    streams = []
    for _ in range(2):
        chunks = list(ask(client, messages, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        streams.append((text, chunks[-1]))
    whole = ask(client, messages)
    assert [text for text, _ in streams] == [whole.choices[0].message.content] * 2
    assert [counts(last) for _, last in streams] == [counts(whole)[::-1], counts(whole)]
    assert streams[1][1].usage == whole.usage


def test_the_responses_api_hits_what_a_chat_has_written(client):
    content = [
        {"type": "input_text", "text": TEXT + "Both.", "prompt_cache_breakpoint": HERE},
        {"type": "input_text", "text": JOINT + QUESTIONS[0]},
    ]
    chat = ask(client, [SYSTEM, *about(TEXT + "Both.")], prompt_cache_key="k")
    options = {"model": "tiny", "temperature": 0, "max_output_tokens": 8, "instructions": SYSTEM["content"]}
    options |= {"input": [{"role": "user", "content": content}], "prompt_cache_key": "k"}
    got = client.responses.create(**options, prompt_cache_options={"ttl": "30m", "mode": "explicit"})
    assert got.output_text == chat.choices[0].message.content and got.laconic["context"] == chat.laconic["context"]
    details = got.usage.input_tokens_details
    assert (details.cached_tokens, details.cache_write_tokens) == counts(chat)[::-1]
    assert got.laconic["cache"] == "hit" and got.prompt_cache_key == "k"
    last = list(client.responses.create(**options, stream=True))[-1].response
    assert last.output_text == got.output_text and last.usage == got.usage


def test_a_prompt_cache_key_keeps_contexts_apart(client):
    found = [ask(client, about(TEXT), prompt_cache_key=key).laconic for key in ("a", "b", "a")]
    assert [one["cache"] for one in found] == ["write", "write", "hit"]
    assert found[0]["context"] == found[2]["context"] != found[1]["context"]
    assert ask(client, about(TEXT)).laconic["context"] not in {one["context"] for one in found}


def test_two_api_keys_share_nothing(made):
    alice, bob = made[0].values()
    first, second = (ask(who, about(TEXT + "Mine."), prompt_cache_key="same") for who in (alice, bob))
    assert counts(first) == counts(second) and counts(second)[0] == 0
    assert first.laconic["context"] != second.laconic["context"] and first.choices == second.choices


def test_how_the_prefix_is_compressed(client, engine):
    third = ask(client, about(TEXT), model="tiny:third")
    for more in ({"preset": "third"}, {"compress": {"method": "keydiff", "keep": 0.3}}):
        got = ask(client, about(TEXT), extra_body={"laconic": more})
        assert got.laconic["context"] == third.laconic["context"] and got.laconic["cache"] == "hit"
    cut = counts(third)[1]
    assert third.choices[0].message.content == later(engine, about(TEXT), cut, ["keydiff:keep=0.3"])[0].text
    plain = ask(client, about(TEXT), model="plain")
    uncompressed = later(engine, about(TEXT), cut, [])[0]
    assert plain.laconic["method"] is None and counts(plain) == (0, cut)
    assert (
        plain.choices[0].message.content == uncompressed.text == ask(client, about(TEXT), "plain").choices[0].message.content
    )


def test_a_query_aware_method_warns(client):
    compress = {"method": "snapkv", "keep": 0.5, "parameters": {"window": 8}}
    for _ in range(2):
        got = ask(client, about(TEXT), extra_body={"laconic": {"compress": compress}})
        assert "not known" in got.laconic["warnings"][0]


def test_time_to_live(client, made):
    def life(got):
        record = client.get(f"/contexts/{got.laconic['context']}", cast_to=object)
        return record["expires_at"] - time.time()

    messages = about(TEXT + "Life.")
    got = ask(client, messages, prompt_cache_options={"ttl": "30m"})
    assert 1790 < life(got) <= 1800
    record = next(one for one in made[1].contexts.records if one.id == got.laconic["context"])
    record.expires_at -= 600
    assert 1790 < life(ask(client, messages, prompt_cache_options={"ttl": "30m"})) <= 1800  # its time begins again
    assert 3590 < life(ask(client, messages)) <= 3600  # what a context lives here, unless something is said
    assert 3590 < life(ask(client, messages, prompt_cache_options={"ttl": "30m"})) <= 3600  # never made shorter
    own = [{"role": "user", "content": [part(TEXT + "Own.", ttl="30m"), part(QUESTIONS[0], False)]}]
    assert 1790 < life(ask(client, own)) <= 1800


def test_requests_at_once_make_one_context(client):
    found = [None] * 3

    def one(i):
        found[i] = ask(client, about(TEXT + "At once.", QUESTIONS[i]))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got.laconic["cache"] for got in found) == ["hit", "hit", "write"]
    assert len({got.laconic["context"] for got in found}) == 1


def test_a_context_that_is_being_made_is_waited_for_unless_it_is_said_otherwise(client, made, monkeypatch):
    held = []
    with monkeypatch.context() as patched:
        patched.setattr(made[1].schedulers["tiny"], "build", held.append)
        messages = about(TEXT + "Held.")
        early = error(ask, client, messages, extra_body={"laconic": {"wait": False}})
        assert early.status_code == 409 and early.code == "context_not_ready"
        late = error(ask, client, messages, extra_body={"laconic": {"deadline_s": 0.1}})
        assert late.status_code == 504 and late.code == "deadline_exceeded"
    why = {"event": "failed", "error": {"status": 503, "code": "disk_full", "message": "the store is full."}}
    loop = made[1].schedulers["tiny"].backend._loop
    loop.call_soon_threadsafe(loop.call_later, 0.3, held[0].hear, why)
    broken = error(ask, client, messages)
    assert broken.status_code == 409 and broken.code == "context_failed" and "the store is full" in broken.message
    assert counts(ask(client, messages))[1]  # a failed one is made anew


def patient(house, monkeypatch, **limits):
    """A server whose streams begin, and say that they are alive, at once."""
    limits = Limits(**{**vars(house.config.limits), "first_byte_s": 0.1, "keep_alive_s": 0.1, **limits})
    monkeypatch.setattr(house, "config", Config(**{**vars(house.config), "limits": limits}))


def test_a_stream_says_that_it_is_alive_while_its_context_is_made(client, made, monkeypatch):
    house, held = made[1], []
    patient(house, monkeypatch)
    scheduler = house.schedulers["tiny"]
    build = scheduler.build
    monkeypatch.setattr(scheduler, "build", held.append)
    body = {"model": "tiny", "messages": about(TEXT + "Alive."), "stream": True, "max_tokens": 8, "temperature": 0}
    lines = []
    headers = {"Authorization": f"Bearer {client.api_key}"}
    with httpx.stream("POST", f"{client.base_url}chat/completions", json=body, headers=headers, timeout=60) as got:
        assert got.status_code == 200
        for line in got.iter_lines():
            lines.append(line)
            if lines.count(": keep-alive") == 2:
                assert scheduler._inflight == {"alice": 1}  # it counts while its context is made
            if lines.count(": keep-alive") == 3 and held:
                scheduler.backend._loop.call_soon_threadsafe(build, held.pop())
    assert lines.count(": keep-alive") >= 3 and lines[-2] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    again = ask(client, about(TEXT + "Alive."))
    assert again.laconic["cache"] == "hit"
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == again.choices[0].message.content


@pytest.mark.parametrize("route", ["chat", "responses"])
def test_an_error_of_a_stream_that_has_begun_is_told_in_it(client, made, monkeypatch, route):
    house, held = made[1], []
    patient(house, monkeypatch)
    monkeypatch.setattr(house.schedulers["tiny"], "build", held.append)
    monkeypatch.setattr(house.contexts, "lift", lambda record: None)
    text, more = TEXT + f"Broken by {route}.", {"laconic": {"deadline_s": 0.4}}
    with pytest.raises(openai.APIError) as raised:
        if route == "chat":
            list(ask(client, about(text), stream=True, extra_body=more))
        else:
            item = {"role": "user", "content": [{**part(text), "type": "input_text"}]}
            events = []
            for event in client.responses.create(model="tiny", input=[item], stream=True, extra_body=more):
                events.append(event)
            kinds = ["response.created", "response.in_progress", "error", "response.failed"]
            assert [event.type for event in events] == kinds
            assert [event.sequence_number for event in events] == [0, 1, 2, 3]
            assert events[-1].response.status == "failed"
            raise openai.APIError(events[2].message, None, body={"code": events[2].code})
    assert raised.value.code == "deadline_exceeded"
    time.sleep(0.2)  # the client has the end of the stream before the server has finished with it
    assert made[2][-1]["code"] == "deadline_exceeded" and made[2][-1]["status"] != 499
    assert not house.schedulers["tiny"]._inflight


def test_a_stream_that_fails_before_it_begins_has_a_status_and_leaves_its_place(client, made, monkeypatch):
    scheduler = made[1].schedulers["plain"]

    def fail(wait):
        for ticket in list(scheduler.waiting):
            ticket.hear({"event": "failed", "id": ticket.job.id, "count": 0, "error": overdue().facts()})

    monkeypatch.setattr(scheduler, "_kick", fail)
    failed = error(ask, client, [{"role": "user", "content": QUESTIONS[0]}], model="plain", stream=True)
    assert failed.status_code == 504 and failed.code == "deadline_exceeded"
    assert not scheduler._inflight and not len(scheduler.waiting)
    time.sleep(0.1)
    assert made[2][-1]["status"] == 504  # not as a client that has left


def test_the_making_of_a_context_is_part_of_the_deadline_and_its_tokens_are_shared(client, made, monkeypatch):
    scheduler, seen = made[1].schedulers["tiny"], []
    enter, build = scheduler.enter, scheduler.build

    async def noted(job, key, most, shared, hear):
        seen.append((job.seconds, shared))
        return await enter(job, key, most, shared, hear)

    def late(one):
        scheduler.backend._loop.call_later(0.5, build, one)

    monkeypatch.setattr(scheduler, "enter", noted)
    monkeypatch.setattr(scheduler, "build", late)
    got = ask(client, about(TEXT + "Late."), extra_body={"laconic": {"deadline_s": 30}})
    ((left, shared),) = seen
    assert 0 < left < 29.5 and shared == counts(got)[1] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_no_context_is_made_for_a_request_that_is_one_too_many(client, made, monkeypatch, stream):
    scheduler, contexts = made[1].schedulers["tiny"], made[1].contexts
    most = made[1].config.limits_of("alice").max_inflight
    monkeypatch.setitem(scheduler._inflight, "alice", most)
    count = len(list(contexts.records))
    many = error(ask, client, about(TEXT + f"One too many {stream}."), stream=stream)
    assert many.status_code == 429 and many.code == "rate_limit_exceeded"
    assert len(list(contexts.records)) == count


def test_the_longest_unused_contexts_make_room(client, made, monkeypatch):
    contexts = made[1].contexts
    first = ask(client, about(TEXT + "First.")).laconic["context"]
    name = next(one for one in contexts.records if one.id == first)
    mine = contexts.records.of(name.tenant)
    for one in mine:
        one.last_used_at += 100
    name.last_used_at -= 1000
    limits = Limits(quota_builds=50, quota_contexts=len(mine))
    monkeypatch.setattr(contexts, "_config", Config(**{**vars(made[1].config), "limits": limits}))
    second = ask(client, about(TEXT + "Second.")).laconic["context"]
    left = {one.id for one in contexts.records.of(name.tenant)}
    assert second in left and first not in left and len(left) == len(mine)


def test_contexts_that_are_needed_stay_and_a_refusal_removes_none(client, made, monkeypatch):
    contexts = made[1].contexts
    first = ask(client, about(TEXT + "Needed.")).laconic["context"]
    record = next(one for one in contexts.records if one.id == first)
    record.last_used_at -= 10_000
    mine = contexts.records.of(record.tenant)
    limits = Limits(quota_builds=50, quota_contexts=len(mine), quota_pinned_bytes=0)
    monkeypatch.setattr(contexts, "_config", Config(**{**vars(made[1].config), "limits": limits}))
    with pytest.raises(Refusal, match="as many contexts as it may"):
        contexts._make_room(record.tenant, True, None)
    assert contexts.records.of(record.tenant) == mine
    with monkeypatch.context() as patched:
        patched.setattr(contexts, "_asked", lambda: {first})
        ask(client, about(TEXT + "While it is asked."))
        assert contexts.records.get(record.tenant, first) is record
    contexts._make_room(record.tenant, False, first)  # the parent of what is to be made
    left = contexts.records.of(record.tenant)
    assert len(left) == len(mine) - 1 and contexts.records.get(record.tenant, first) is record
    limits = Limits(quota_builds=50, quota_contexts=len(left))
    monkeypatch.setattr(contexts, "_config", Config(**{**vars(made[1].config), "limits": limits}))
    contexts._make_room(record.tenant, False, None)
    assert contexts.records.get(record.tenant, first) is None


def test_what_is_counted_adds_up(client, made):
    def total(name):
        text = client._client.get(str(client.base_url).replace("/v1/", "/metrics"), headers=client.auth_headers).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name}_total"))

    names = ("laconic_prompt_tokens_cached", "laconic_cache_write_tokens", "laconic_context_hits")
    before = [total(name) for name in names]
    written, hit = (ask(client, about(TEXT + "Counted.")) for _ in range(2))
    want = [counts(hit)[0], counts(written)[1], 1]
    assert [total(name) - was for name, was in zip(names, before, strict=True)] == want
    build = client.get(f"/contexts/{hit.laconic['context']}", cast_to=object)["seconds"]
    assert all(written.laconic["seconds"][name] > build[name] > 0 for name in ("queue", "prefill", "compress"))
    assert "falcon" not in json.dumps(made[2])


def test_without_a_breakpoint_the_fields_change_nothing(client):
    options = {"prompt_cache_key": "k", "prompt_cache_options": {"mode": "explicit", "ttl": "30m"}}
    got = ask(client, [LAST], **options)
    assert counts(got) == (0, 0) and got.laconic["ignored"] == list(options) and got.laconic["context"] is None


PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SHORTENS = {"compress": {"method": "truncate_text", "keep": 0.5}}
CUT = "messages[0].content[0].prompt_cache_breakpoint"


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"prompt_cache_options": {"mode": "implicit"}}, "unsupported_parameter", "prompt_cache_options.mode"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "invalid_value", "prompt_cache_options.ttl"),
        ({"prompt_cache_options": {"prewarm": True}}, "unsupported_parameter", "prompt_cache_options.prewarm"),
        ({"prompt_cache_options": {"tttl": "30m"}}, "unknown_parameter", "prompt_cache_options.tttl"),
        ({"prompt_cache_options": "explicit"}, "invalid_value", "prompt_cache_options"),
        ({"prompt_cache_key": 3}, "invalid_value", "prompt_cache_key"),
        ({"prompt_cache_key": "k" * 1025}, "invalid_value", "prompt_cache_key"),
        ({"laconic": {"context": "ctx_" + "a" * 26}}, "invalid_value", CUT),
        ({"model": "tiny@ctx_" + "a" * 26}, "invalid_value", CUT),
        ({"laconic": SHORTENS}, "method_conflict", "messages"),
        ({"messages": about("word " * 4000)}, "context_length_exceeded", "messages"),
        ({"messages": about("word ", "word " * 4000)}, "context_length_exceeded", "messages"),
        ({"messages": about(" ")}, "invalid_value", CUT),
        ({"messages": [{"role": "user", "content": [part("a"), PIXEL]}]}, "unsupported_parameter", CUT),
        (
            {"messages": [{"role": "user", "content": [{**PIXEL, "prompt_cache_breakpoint": HERE}]}]},
            "unsupported_parameter",
            CUT,
        ),
        *[
            ({"messages": [{"role": "user", "content": [{**part("a"), "prompt_cache_breakpoint": odd}]}]}, code, CUT + more)
            for odd, code, more in [
                ({"mode": "implicit"}, "invalid_value", ".mode"),
                ({}, "missing_required_parameter", ".mode"),
                (True, "invalid_value", ""),
                ([], "invalid_value", ""),
                ({**HERE, "ttl": "1h"}, "invalid_value", ".ttl"),
                ({**HERE, "size": 1}, "unknown_parameter", ".size"),
                ({**HERE, "ttl": "12h"}, "invalid_value", ".ttl"),
            ]
        ],
    ],
)
def test_what_is_wrong_is_named(client, made, change, code, param):
    before = {one.id for one in made[1].contexts.records}
    body = {"model": "tiny", "messages": about("A text."), "max_tokens": 2, **change}
    answer = httpx.post(f"{client.base_url}chat/completions", json=body, headers=client.auth_headers, timeout=60)
    found = answer.json()["error"]
    assert (answer.status_code, found["code"], found["param"]) == (400, code, param)
    assert {one.id for one in made[1].contexts.records} == before


def test_breakpoints_go_with_questions_only(client):
    marked = [{"role": "user", "content": [part("A text.")]}]
    for path, body in (
        ("/contexts", {"messages": marked}),
        ("/responses/compact", {"input": marked}),
    ):
        found = error(client.post, path, cast_to=object, body={"model": "tiny", **body})
        assert found.status_code == 400 and found.code == "unsupported_parameter"


def test_a_compaction_takes_a_key_and_no_breakpoint(client):
    def compact(**more):
        return client.responses.compact(model="tiny", input=TEXT, **more)

    compact(prompt_cache_key="x")
    assert compact(prompt_cache_key="x").usage.input_tokens_details.cached_tokens
    item = compact(prompt_cache_key="y")
    assert item.usage.input_tokens_details.cache_write_tokens
    given = [item.output[0].model_dump(), {"role": "user", "content": [{**part("A text."), "type": "input_text"}]}]
    found = error(client.responses.create, model="tiny", input=given)
    assert found.status_code == 400 and found.param == "input[1].content[0].prompt_cache_breakpoint"
