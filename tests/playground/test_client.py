"""The playground's client against a real server: the answers are the library's, and refusals are sentences."""

from itertools import pairwise

import pytest
from helpers.bench_tools import save_tiny
from helpers.serving import in_thread, real_worker, running

import laconic
from laconic.playground.choice import Choice
from laconic.playground.client import PlaygroundError, Server
from laconic.serve.config import Config, Model, StoreSettings
from laconic.serve.keys import add_key

TEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
QUESTION = "What is the code for falcon?"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(address with /v1, key, folder of the model)."""
    folder, keys = save_tiny(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("keys") / "keys"
    key = add_key(keys, "alice")
    store = StoreSettings(dir=str(tmp_path_factory.mktemp("store")), min_free=0)
    config = Config(models=(Model("tiny", path=str(folder)),), store=store, key_file=keys)
    with running(config, in_thread(real_worker)) as (address, _):
        yield f"{address}/v1", key, folder


@pytest.fixture
def server(served):
    return Server(*served[:2])


def last(answers):
    *_, answer = answers
    return answer


def test_it_lists_models_and_what_shortens_a_cache(server):
    assert server.models() == ["tiny"]
    assert {"kvzip", "snapkv"} <= set(server.methods()) and not {"fastv", "llmlingua"} & set(server.methods())


def test_answers_are_those_of_the_library(served, server):
    model, tokenizer = laconic.load(str(served[2]))
    for choice, methods in ((Choice("keydiff", 0.5), ["keydiff:keep=0.5"]), (Choice(), [])):
        answers = list(server.ask("tiny", TEXT, QUESTION, choice, most=8))
        want = laconic.read(model, tokenizer, TEXT, *methods).ask(QUESTION, max_new_tokens=8)
        assert answers[-1].done and answers[-1].text == want.text and not any(one.done for one in answers[:-1])
        assert all(later.text.startswith(one.text) for one, later in pairwise(answers))


def test_figures_and_what_was_kept_come_with_the_whole_answer(server):
    cut = last(server.ask("tiny", TEXT, QUESTION, Choice("keydiff", 0.5), most=4))
    whole = last(server.ask("tiny", TEXT, QUESTION, Choice(), most=4))
    assert 0.45 < cut.figures["kv_bytes"] / cut.figures["kv_bytes_full"] < 0.6 and cut.reading > 0
    assert whole.figures["kept_tokens"] == whole.figures["original_tokens"] and not whole.pieces and not whole.reading
    assert {piece["kept"] for piece in cut.pieces} == {True, False}
    assert TEXT.strip() in "".join(piece["text"] for piece in cut.pieces)
    assert 0 < cut.first <= cut.total


def test_refusals_are_sentences(served, server, tmp_path):
    url = served[0]
    with pytest.raises(PlaygroundError, match=r"keydiff has no parameter 'wrong'.*\(400\)"):
        last(server.ask("tiny", TEXT, QUESTION, Choice("keydiff", 0.5, "wrong=1")))
    with pytest.raises(PlaygroundError, match=r"\(401\)"):
        Server(url, "lak_wrong").models()
    with pytest.raises(PlaygroundError, match=r"no server answers at http://127.0.0.1:9/v1: .*; start one"):
        Server("http://127.0.0.1:9/v1").models()
    with pytest.raises(PlaygroundError, match=r"\(40\d\)"):
        last(server.ask("tinny", TEXT, QUESTION, Choice()))
    image = tmp_path / "dot.png"
    image.write_bytes(b"\x89PNG")
    with pytest.raises(PlaygroundError, match=r"\(400\)"):
        last(server.ask("tiny", "", QUESTION, Choice(), image))
