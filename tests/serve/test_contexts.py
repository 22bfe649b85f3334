"""Contexts over HTTP: made once, asked as the library asks them, listed, changed, deleted; and nobody sees another key's."""

import json
import threading
import time

import httpx
import openai
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

import laconic
from laconic.prompts.text import JOINT
from laconic.serve.compression import Compression
from laconic.serve.config import Config, Limits, Model, StoreSettings
from laconic.serve.keys import add_key

TEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
QUESTIONS = ("What is the code for falcon?", "And heron?", "Which birds are there?")
UNKNOWN = "ctx_" + "a" * 26


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """A server with two keys and an administrator -> (address, clients by name, house, log)."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    tokens = {name: add_key(path, name, admin=name == "admin") for name in ("alice", "bob", "admin")}
    presets = {"half": Compression.of({"method": "keydiff", "keep": 0.5}, "preset.half", trusted=True)}
    config = Config(
        models=(Model("tiny", path=str(folder), default_preset="half"),),
        presets=presets,
        store=StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0),
        limits=Limits(quota_builds=50, quota_contexts=40),
        key_file=path,
    )
    log = []
    with running(config, in_thread(real_worker), log) as (address, house):
        clients = {
            name: httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=60)
            for name, token in tokens.items()
        }
        yield address, clients, house, log


@pytest.fixture(scope="module")
def alice(made):
    return made[1]["alice"]


def create(client, **body):
    return client.post("/v1/contexts", json={"model": "tiny", "wait": 30, **body})


def ask(client, question, **more):
    body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 8}
    return client.post("/v1/chat/completions", json={**body, **more})


@pytest.fixture(scope="module")
def context(alice):
    response = create(alice, text=TEXT, name="birds", metadata={"a": "b"})
    assert response.status_code == 201, response.text
    return response.json()


@pytest.fixture(scope="module")
def reference(folder):
    model, tokenizer = laconic.load(str(folder))
    return laconic.read(model, tokenizer, TEXT, "keydiff:keep=0.5")


def test_what_a_context_says_of_itself_is_measured(context, reference):
    assert context["object"] == "context" and context["status"] == "ready" and context["error"] is None
    assert context["tokens"]["original"] == len(reference.ids)
    entries = reference.stats.entries
    assert context["tokens"]["kept"] == pytest.approx(sum(entries) / len(entries))
    assert (
        context["bytes"]["kv"] == reference.stats.kv_bytes and context["bytes"]["kv_full"] == reference.stats.kv_bytes_full
    )
    assert context["bytes"]["file"] > context["bytes"]["kv"]
    assert context["compression"]["method"] == "keydiff" and context["compression"]["achieved"] == reference.stats.achieved
    assert (context["name"], context["metadata"], context["pinned"]) == ("birds", {"a": "b"}, False)
    assert 0 <= context["expires_at"] - context["created_at"] - 3600 < 60  # its life begins once it is made
    assert not {"tenant", "owner", "form", "ttl", "text"} & set(context)


def test_the_same_context_is_found_again(alice, context):
    again = create(alice, text=TEXT, compress={"method": "keydiff", "keep": 0.5})
    assert again.status_code == 200 and again.json()["id"] == context["id"]
    for other in ({"text": TEXT + "."}, {"text": TEXT, "system": "Be brief."}, {"text": TEXT, "protect": [0, 3]}):
        response = create(alice, **other)
        assert response.status_code == 201 and response.json()["id"] != context["id"]
    keep = create(alice, text=TEXT, compress={"method": "keydiff", "keep": 0.25})
    assert keep.status_code == 201 and keep.json()["id"] != context["id"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_is_asked_as_the_library_asks_it(alice, context, reference, question):
    want = reference.ask(question, max_new_tokens=8)
    got = ask(alice, question, laconic={"context": context["id"]}).json()
    assert got["choices"][0]["message"]["content"] == want.text
    named = ask(alice, question, model=f"tiny@{context['id']}").json()
    assert named["choices"] == got["choices"] and named["usage"] == got["usage"]
    usage, about = got["usage"], got["laconic"]
    prompt = reference.prompt(question)
    assert usage["prompt_tokens"] == prompt.tokens
    assert (
        usage["prompt_tokens_details"]["cached_tokens"]
        == len(reference.ids)
        == usage["prompt_tokens"] - len(prompt.question)
    )
    kept = sum(want.prompt.entries) / len(want.prompt.entries)
    assert usage["laconic"]["kept_tokens"] == pytest.approx(kept, abs=0.01)
    assert usage["laconic"]["kv_bytes"] == want.prompt.kv_bytes
    assert about["cache"] == "hit" and about["context"] == context["id"] and about["method"] == "keydiff"


def test_questions_at_once_share_a_batch_and_answer_as_alone(alice, context):
    alone = [ask(alice, q, laconic={"context": context["id"]}).json() for q in QUESTIONS]
    found = [None] * 3

    def one(i):
        found[i] = ask(alice, QUESTIONS[i], laconic={"context": context["id"]}).json()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(3)]
    blocker = threading.Thread(target=ask, args=(alice, "Tell me more."), kwargs={"max_tokens": 200})
    blocker.start()
    time.sleep(0.1)
    for thread in threads:
        thread.start()
    for thread in [*threads, blocker]:
        thread.join()
    assert max(one["laconic"]["batch"] for one in found) > 1
    for got, want in zip(found, alone, strict=True):
        assert got["choices"] == want["choices"] and got["usage"] == want["usage"]


def test_a_conversation_goes_on_after_a_text(alice, context, reference):
    first = ask(alice, QUESTIONS[0], laconic={"context": context["id"]}).json()["choices"][0]["message"]["content"]
    turns = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": first},
        {"role": "user", "content": QUESTIONS[1]},
    ]
    body = {"messages": turns, "laconic": {"context": context["id"]}}
    got = ask(alice, "", **body).json()
    tokenizer = reference.tokenizer
    shown = [{"role": "user", "content": TEXT + JOINT + QUESTIONS[0]}, *turns[1:]]
    text = tokenizer.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
    assert got["usage"]["prompt_tokens"] == len(tokenizer.encode(text, add_special_tokens=False))
    assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == len(reference.ids)


def test_turns_are_a_context_too(alice):
    turns = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Noted."}]
    response = create(alice, messages=turns, compress={"method": "keydiff", "keep": 1.0})
    assert response.status_code == 201
    name = response.json()["id"]
    got = ask(alice, QUESTIONS[0], laconic={"context": name}).json()
    whole = ask(alice, "", messages=[*turns, {"role": "user", "content": QUESTIONS[0]}]).json()
    assert got["choices"] == whole["choices"]
    assert got["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"]
    assert got["usage"]["prompt_tokens_details"]["cached_tokens"] == response.json()["tokens"]["original"]


def test_another_beginning_is_refused(alice, context):
    for messages in (
        [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
        [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}],
    ):
        got = ask(alice, "", messages=messages, laconic={"context": context["id"]})
        assert got.status_code == 400 and got.json()["error"]["code"] == "context_prefix_mismatch"


def test_what_it_keeps_is_shown_to_its_owner(alice, context, reference):
    found = alice.get(f"/v1/contexts/{context['id']}/kept?layer=1&head=1&text=true").json()
    want = reference.cache.kept(1, 1).tolist()
    assert [i for start, length in found["runs"] for i in range(start, start + length)] == want
    assert found["kept"] == len(want) and found["tokens"] == len(reference.ids)
    assert {piece["kept"] for piece in found["pieces"]} == {True, False}
    for query in ("layer=9", "head=9", "layer=x", "layer=-1", "text=maybe"):
        assert alice.get(f"/v1/contexts/{context['id']}/kept?{query}").status_code == 400


def test_another_key_s_context_is_as_good_as_none(made, context):
    bob = made[1]["bob"]
    own = create(bob, text=TEXT)
    assert own.status_code == 201 and own.json()["id"] != context["id"]
    for name in (context["id"], UNKNOWN, "ctx_x", "ctx_%00", "x" * 500):
        answers = [
            bob.get(f"/v1/contexts/{name}"),
            bob.get(f"/v1/contexts/{name}/kept"),
            bob.patch(f"/v1/contexts/{name}", json={"name": "mine"}),
            bob.delete(f"/v1/contexts/{name}"),
        ]
        assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(404, "context_not_found")] * 4
    answers = [ask(bob, "x", laconic={"context": name}) for name in (context["id"], UNKNOWN)]
    assert [one.status_code for one in answers] == [404, 404] and answers[0].json() == answers[1].json()
    assert context["id"] not in bob.get("/v1/contexts?limit=100").text


def test_lists_come_in_pages(alice, context):
    whole = alice.get("/v1/contexts?limit=100").json()
    assert not whole["has_more"] and whole["data"][-1]["id"] == context["id"]
    seen, after = [], ""
    while True:
        page = alice.get(f"/v1/contexts?limit=2&after={after}").json()
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == [one["id"] for one in whole["data"]]
    assert alice.get("/v1/contexts?order=asc&limit=1").json()["data"][0]["id"] == context["id"]
    assert alice.get("/v1/contexts?status=failed").json()["data"] == []
    for query in ("limit=0", "limit=101", "order=up", "status=new", "after=ctx_x"):
        assert alice.get(f"/v1/contexts?{query}").status_code == 400


def test_an_administrator_sees_owners_and_sizes_and_no_more(made, context):
    assert made[1]["alice"].get("/v1/contexts?all=1").status_code == 403
    found = made[1]["admin"].get("/v1/contexts?all=1&limit=100").json()["data"]
    assert {one["owner"] for one in found} == {"alice", "bob"}
    assert all(not {"name", "metadata", "compression"} & set(one) for one in found)
    assert made[1]["admin"].get(f"/v1/contexts/{context['id']}").status_code == 404


def test_name_metadata_and_life_can_be_changed(alice, context):
    path = f"/v1/contexts/{context['id']}"
    changed = alice.patch(path, json={"name": "others", "metadata": {}, "ttl": "60s"}).json()
    assert (changed["name"], changed["metadata"]) == ("others", {})
    assert 0 <= changed["expires_at"] - time.time() <= 61
    pinned = alice.patch(path, json={"pinned": True}).json()
    assert pinned["pinned"] and pinned["expires_at"] is None
    assert alice.patch(path, json={"pinned": False, "ttl": 3600}).json()["expires_at"] is not None
    for body in ({"ttl": 0}, {"ttl": 10**9}, {"ttl": "5m"}, {"model": "tiny"}, {"pinned": 1}, {"name": "x" * 129}):
        assert alice.patch(path, json=body).status_code == 400


def test_a_deleted_context_is_gone_at_once(alice, made):
    name = create(alice, text=TEXT + "Deleted.").json()["id"]
    ask(alice, "x", laconic={"context": name})
    assert alice.delete(f"/v1/contexts/{name}").json() == {"id": name, "object": "context.deleted", "deleted": True}
    assert alice.get(f"/v1/contexts/{name}").status_code == 404
    assert ask(alice, "x", laconic={"context": name}).status_code == 404
    assert not list(made[2].config.store.folder.rglob(f"*{name}*safetensors"))


def test_one_whose_time_is_over_is_gone(alice, made):
    name = create(alice, text=TEXT + "Short.", ttl=0.2).json()["id"]
    time.sleep(0.3)
    assert alice.get(f"/v1/contexts/{name}").status_code == 404
    record = create(alice, text=TEXT + "Swept.", ttl=0.2).json()
    time.sleep(0.3)
    made[2].contexts.sweep()
    left = [path for path in made[2].config.store.folder.rglob(f"{record['id']}*") if path.suffix != ".lock"]
    assert not left


def test_a_request_waits_for_a_context_that_is_being_made(alice):
    response = alice.post("/v1/contexts", json={"model": "tiny", "text": TEXT + "Waited for."})
    name = response.json()["id"]
    assert response.status_code in (201, 202)
    if response.status_code == 202:
        assert response.headers["location"] == f"/v1/contexts/{name}" and response.headers["retry-after"] == "1"
    assert ask(alice, "x", laconic={"context": name}).json()["laconic"]["cache"] == "hit"


def test_a_file_is_a_text(alice):
    request = json.dumps({"model": "tiny", "wait": 30, "preset": "half"})
    files = [
        ("request", (None, request, "application/json")),
        ("file", ("../a.txt", "The code for owl is 7.", "text/plain")),
        ("file", ("b.md", "The code for crane is 8.", "text/markdown")),
    ]
    response = alice.post("/v1/contexts", files=files)
    assert response.status_code == 201, response.text
    same = create(alice, text="The code for owl is 7.\n\nThe code for crane is 8.")
    assert same.status_code == 200 and same.json()["id"] == response.json()["id"]
    broken = alice.post("/v1/contexts", files=[("file", ("a", b"\xff", "text/plain"))])
    assert broken.status_code == 400


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"text": "a", "messages": []}, "missing_required_parameter"),
        ({"text": " "}, "invalid_value"),
        ({"text": "a", "compress": {"method": "nothing"}}, "invalid_value"),
        ({"text": "a", "preset": "none"}, "invalid_value"),
        ({"text": "a", "preset": "half", "compress": {"method": "random"}}, "invalid_value"),
        ({"text": "a", "wait": 31}, "invalid_value"),
        ({"text": "a", "ttl": -1}, "invalid_value"),
        ({"text": "word " * 4000}, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": "x"}], "system": "s"}, "invalid_value"),
        ({"text": "a", "colour": 1}, "unknown_parameter"),
        ({"txt": "a"}, "unknown_parameter"),
    ],
)
def test_what_cannot_be_made_is_refused(alice, body, code):
    response = alice.post("/v1/contexts", json={"model": "tiny", **body})
    assert response.status_code == 400 and response.json()["error"]["code"] == code


def test_an_empty_question_to_a_context_is_refused(alice):
    name = create(alice, text=TEXT).json()["id"]
    response = ask(alice, " ", laconic={"context": name})
    assert response.status_code == 400 and "asks the context nothing" in response.json()["error"]["message"]


def test_a_query_aware_method_is_warned_about(alice):
    found = create(alice, text=TEXT, compress={"method": "snapkv", "keep": 0.5, "parameters": {"window": 8}}).json()
    assert found["compression"]["query_aware"] and "not known" in found["warnings"][0]


def test_a_damaged_file_is_never_served(alice, made):
    name = create(alice, text=TEXT + "Damaged.").json()["id"]
    (path,) = made[2].config.store.folder.rglob(f"{name}*safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    desk_forgets(made, name)
    response = ask(alice, "x", laconic={"context": name})
    assert response.status_code == 409 and response.json()["error"]["code"] == "context_failed"
    assert response.headers["x-should-retry"] == "false"


def desk_forgets(made, name):
    """Let the worker drop what it has at hand, as another process would have nothing at hand."""
    record = next(record for record in made[2].contexts.records if record.id == name)
    stored = {"namespace": record.tenant, "key": name, "form": record.form}
    made[2].schedulers["tiny"].backend.send({"op": "drop", "id": name, "context": stored})


def test_the_client_of_five_minutes(made, context):
    address, clients, _, _ = made
    key = clients["alice"].headers["authorization"].removeprefix("Bearer ")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    made_now = client.post("/contexts", cast_to=object, body={"model": "tiny", "text": TEXT, "preset": "half", "wait": 30})
    assert made_now["id"] == context["id"]
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    answer = client.chat.completions.create(model="tiny@" + made_now["id"], messages=messages, max_tokens=4)
    assert answer.usage.prompt_tokens_details.cached_tokens == context["tokens"]["original"]
    assert answer.usage.laconic["kept_tokens"] < answer.usage.prompt_tokens


def test_contexts_outlive_the_server(made, context, folder):
    """A second application on the same store knows the same contexts."""
    from laconic.serve.front.contexts import Contexts

    again = Contexts(made[2].config, {})
    record = next(record for record in again.records if record.id == context["id"])
    assert record.status == "ready" and record.owner == "alice"


def test_no_text_of_a_context_is_logged_or_recorded(made, context):
    _, clients, house, log = made
    shown = json.dumps(log) + clients["alice"].get("/metrics").text
    shown += "".join(path.read_text() for path in (house.config.store.folder / "records").rglob("*.json"))
    assert "falcon" not in shown and "birds" not in json.dumps(log)
