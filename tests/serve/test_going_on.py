"""Contexts that go on from a stored one (`parent`), over HTTP: the library's own answers, and what cannot go on."""

import json

import httpx
import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

import laconic
from laconic.engine.engine import Engine, Request
from laconic.method import create_method
from laconic.prompts.text import JOINT, Prompt
from laconic.serve.compression import Compression
from laconic.serve.config import Config, Limits, Model, StoreSettings
from laconic.serve.keys import add_key

FIRST = ("The code for falcon is 4815263. The code for heron is 1623421. " * 4).strip()
LATER = "The code for owl is 7777777. The code for crane is 8888888."
QUESTION = "What is the code for owl?"
TURNS = [{"role": "user", "content": FIRST}, {"role": "assistant", "content": "Noted."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder):
    return Engine(*laconic.load(str(folder)))


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """A server with two keys -> (clients by name, house)."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    tokens = {name: add_key(path, name) for name in ("alice", "bob")}
    config = Config(
        models=(Model("tiny", path=str(folder), default_preset="half"),),
        presets={"half": Compression.of({"method": "keydiff", "keep": 0.5}, "preset.half", trusted=True)},
        store=StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0),
        limits=Limits(quota_builds=50),
        key_file=path,
    )
    with running(config, in_thread(real_worker)) as (address, house):
        yield (
            {
                name: httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=60)
                for name, token in tokens.items()
            },
            house,
        )


@pytest.fixture(scope="module")
def alice(made):
    return made[0]["alice"]


def create(client, **body):
    return client.post("/v1/contexts", json={"model": "tiny", "wait": 30, **body})


def ask(client, context, question=QUESTION):
    body = {"model": f"tiny@{context}", "messages": [{"role": "user", "content": question}]}
    return client.post("/v1/chat/completions", json={**body, "temperature": 0, "max_tokens": 8})


@pytest.fixture(scope="module")
def parent(alice):
    return create(alice, text=FIRST).json()


@pytest.fixture(scope="module")
def child(alice, parent):
    response = create(alice, text=LATER, parent=parent["id"])
    assert response.status_code == 201, response.text
    return response.json()


def two_passes(engine, ids, first, spec="keydiff:keep=0.5"):
    """The library's reading of `ids` in two passes, the first one as long as the parent."""
    return engine.read(Request(prompt=Prompt(ids, [], True, ""), methods=[create_method(spec)], chunk=first))


def kept(client, context, layer=1, head=1):
    runs = client.get(f"/v1/contexts/{context}/kept?layer={layer}&head={head}").json()["runs"]
    return [i for start, length in runs for i in range(start, start + length)]


def test_a_child_is_answered_as_the_library_answers_after_two_passes(alice, engine, parent, child):
    whole = Request(context=FIRST + "\n\n" + LATER, methods=[create_method("keydiff:keep=0.5")])
    want = engine.read(Request(**{**vars(whole), "chunk": parent["tokens"]["original"]}))
    assert child["parent"] == parent["id"] and parent["parent"] is None
    assert child["tokens"]["original"] == len(want.ids)
    assert child["bytes"]["kv"] == want.stats.kv_bytes and child["compression"]["achieved"] == want.stats.achieved
    assert kept(alice, child["id"]) == want.cache.kept(1, 1).tolist()
    answer = ask(alice, child["id"]).json()
    said = want.ask(QUESTION, max_new_tokens=8)
    assert answer["choices"][0]["message"]["content"] == said.text
    assert answer["usage"]["prompt_tokens"] == want.prompt(QUESTION).tokens
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == len(want.ids)
    assert answer["usage"]["laconic"]["kv_bytes"] == said.prompt.kv_bytes


def test_it_has_a_key_of_its_own_and_is_found_again(alice, parent, child):
    again = create(alice, text=LATER, parent=parent["id"], preset="half")
    assert again.status_code == 200 and again.json()["id"] == child["id"]
    at_once = create(alice, text=FIRST + "\n\n" + LATER)
    assert at_once.status_code == 201 and at_once.json()["id"] != child["id"]
    assert at_once.json()["tokens"]["original"] == child["tokens"]["original"]


@pytest.mark.parametrize("first", [{"text": FIRST}, {"text": FIRST, "system": "Be brief."}, {"messages": TURNS}])
@pytest.mark.parametrize(
    "later",
    [{"text": LATER}, {"messages": [{"role": "user", "content": LATER}, {"role": "assistant", "content": "Noted."}]}],
)
def test_texts_and_turns_go_on_with_both(alice, engine, first, later):
    before = create(alice, **first).json()
    context = create(alice, **later, parent=before["id"]).json()
    turns = list(first.get("messages", []))
    if "system" in first:
        turns.append({"role": "system", "content": first["system"]})
    open_text = first.get("text")
    if "text" in later:
        content = later["text"] if open_text is None else open_text + "\n\n" + later["text"]
        turns.append({"role": "user", "content": content + JOINT + QUESTION})
    else:
        opened = later["messages"][0]["content"]
        content = opened if open_text is None else open_text + JOINT + opened
        turns += [{"role": "user", "content": content}, later["messages"][1], {"role": "user", "content": QUESTION}]
    text = engine.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = engine.tokenizer.encode(text, add_special_tokens=False)
    answer = ask(alice, context["id"]).json()
    read = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert answer["usage"]["prompt_tokens"] == len(ids) and read == context["tokens"]["original"]
    want = two_passes(engine, ids[:read], before["tokens"]["original"])
    assert kept(alice, context["id"]) == want.cache.kept(1, 1).tolist()


def test_a_child_goes_on_too_and_stands_without_its_parents(alice, made, parent):
    middle = create(alice, text=LATER + " Later.", parent=parent["id"]).json()
    last = create(alice, text="The code for swan is 5.", parent=middle["id"]).json()
    before = ask(alice, last["id"]).json()["choices"]
    alice.delete(f"/v1/contexts/{middle['id']}")
    assert ask(alice, last["id"]).json()["choices"] == before
    assert alice.get(f"/v1/contexts/{last['id']}").json()["parent"] == middle["id"]
    assert create(alice, text="More.", parent=middle["id"]).status_code == 404


def test_what_the_parent_protects_stays(alice):
    first = create(alice, text=FIRST, protect="falcon", compress={"method": "keydiff", "keep": 0.3}).json()
    context = create(alice, text=LATER, parent=first["id"], protect="7777777").json()
    assert context["compression"]["protected_tokens"] > first["compression"]["protected_tokens"] > 0
    pieces = alice.get(f"/v1/contexts/{context['id']}/kept?text=true").json()["pieces"]
    stays = "".join(piece["text"] if piece["kept"] else "|" for piece in pieces)
    assert stays.count("falcon") == FIRST.count("falcon") and "7777777" in stays


def test_a_packed_context_goes_on(alice):
    packed = create(alice, text=FIRST, compress={"method": "kivi"}).json()
    assert ask(alice, create(alice, text=LATER, parent=packed["id"]).json()["id"]).status_code == 200


def test_another_key_s_and_unknown_parents_are_404(made, parent):
    for name in (parent["id"], "ctx_" + "a" * 26, "../x"):
        response = create(made[0]["bob"], text=LATER, parent=name)
        assert response.status_code == 404 and response.json()["error"]["code"] == "context_not_found"


def test_a_parent_that_is_being_made_is_waited_for_and_a_failed_one_refused(alice, made, monkeypatch):
    scheduler = made[1].schedulers["tiny"]
    held = []
    monkeypatch.setattr(scheduler, "build", held.append)
    first = create(alice, text=FIRST + " Held.", wait=0).json()
    early = create(alice, text=LATER, parent=first["id"], wait=0.05)
    assert early.status_code == 409 and early.json()["error"]["code"] == "context_not_ready"
    assert early.headers["retry-after"] == "1"
    held[0].hear({"event": "failed", "error": {"status": 503, "code": "disk_full", "message": "full"}})
    late = create(alice, text=LATER, parent=first["id"])
    assert late.status_code == 409 and late.json()["error"]["code"] == "context_failed"
    assert late.headers["x-should-retry"] == "false"


def test_a_parent_that_goes_before_its_child_is_made(alice, made, monkeypatch):
    first = create(alice, text=FIRST + " Gone.").json()
    scheduler = made[1].schedulers["tiny"]
    held = []
    with monkeypatch.context() as patched:
        patched.setattr(scheduler, "build", held.append)
        context = create(alice, text=LATER, parent=first["id"], wait=0).json()
    alice.delete(f"/v1/contexts/{first['id']}")
    queue_again(scheduler, held[0])
    answer = ask(alice, context["id"])
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "context_failed"
    assert "parent" in alice.get(f"/v1/contexts/{context['id']}").json()["error"]["message"]


def queue_again(scheduler, build):
    """Put a build into the queue from the loop that owns it."""
    scheduler.backend._loop.call_soon_threadsafe(scheduler.build, build)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"text": LATER, "system": "Be brief."}, "invalid_value"),
        ({"text": LATER, "compress": {"method": "keydiff", "keep": 0.25}}, "method_conflict"),
        ({"text": LATER, "compress": {"method": "snapkv", "keep": 0.5}}, "method_conflict"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "context_prefix_mismatch"),
        ({"text": "word " * 4000}, "context_length_exceeded"),
    ],
)
def test_what_cannot_go_on_is_refused(alice, parent, body, code):
    response = create(alice, parent=parent["id"], **body)
    assert response.status_code == 400 and response.json()["error"]["code"] == code


def test_a_context_whose_text_was_shortened_cannot_go_on(alice):
    first = create(alice, text=FIRST, compress={"method": "truncate_text", "keep": 0.5})
    assert first.status_code == 201, first.text
    response = create(alice, text=LATER, parent=first.json()["id"])
    assert response.status_code == 400 and response.json()["error"]["code"] == "method_conflict"


def test_records_hold_no_text(alice, made, child):
    shown = json.dumps(child) + "".join(p.read_text() for p in (made[1].config.store.folder / "records").rglob("*.json"))
    assert "falcon" not in shown and "7777777" not in shown and not {"compress", "protected"} & set(child)
