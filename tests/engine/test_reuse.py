"""The label `reuse` of methods: one pass over a context beside two, the second one after a stored first."""

from pathlib import Path

import pytest

import laconic
from laconic.cache.saved import load
from laconic.engine.engine import Engine, Request
from laconic.engine.going_on import go_on
from laconic.errors import ArtifactError, SessionError
from laconic.method import create_method, list_methods
from laconic.prompts.text import Prompt, build

NOTE = Path("examples/note.txt").read_text()
SETTINGS = {
    "truncate": "truncate:keep=0.5,side=right",  # what it keeps by default, the end, would be the same
    "razorattention": "razorattention:buffer=32,share=20",
    "lococo": "lococo",
    "kivi": "kivi:residual=32",
    "gear": "gear",
    "minicache": "minicache",
    "zipvl": "zipvl",
}
"""Where the usual budget shows nothing, or is not for it. All others: half of the entries."""
SPLITS = (150, 203)
CUT = [entry.name for entry in list_methods() if entry.site == "cache"]
WRITTEN = ["magnitude", "rtn"]  # the others need a fit of their own; they write weights once, too


@pytest.fixture(scope="module")
def engine():
    return Engine(*laconic.load("testbed/lm"))


@pytest.fixture(scope="module")
def ids(engine):
    return build(engine.tokenizer, NOTE, "?").context[:300]


def same(one, two):
    """Whether two contexts keep the same, take the same bytes and are answered with the same tokens."""
    layers = one.cache.layer_ids
    heads = [(layer, head) for layer in layers for head in range(2)]
    if any(one.cache.kept(*each).tolist() != two.cache.kept(*each).tolist() for each in heads):
        return False
    asked = [each.ask("What is the code for beaver?", max_new_tokens=8).ids for each in (one, two)]
    return one.stats.kv_bytes == two.stats.kv_bytes and asked[0] == asked[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CUT, *WRITTEN])
def test_two_passes_keep_what_the_label_says(engine, ids, name, tmp_path):
    label = next(entry.cls.reuse for entry in list_methods(name))
    text = engine.tokenizer.decode(ids[2:])

    def request(length):
        spec = SETTINGS.get(name, f"{name}:keep=0.5" if name in CUT else name)
        return Request(context=text, prompt=Prompt(ids[:length], [], True, ""), methods=[create_method(spec)])

    try:
        one = engine.read(request(len(ids)))
    except ArtifactError:
        pytest.skip("it was fitted for no model that ships")
    found = []
    for split in SPLITS:
        path = tmp_path / f"{split}.safetensors"
        engine.read(request(split)).save(path)
        saved = load(path, engine.model, engine.tokenizer)
        found.append(same(one, go_on(engine, saved, request(len(ids)))))
    assert all(found) if label == "exact" else label == "continue" and not all(found)


def test_weights_of_one_prompt_are_refused(engine, ids):
    assert next(entry.cls.reuse for entry in list_methods("eas")) == "refused"
    with pytest.raises(SessionError, match="depend on the prompt"):
        engine.read(Request(prompt=Prompt(ids, [], True, ""), methods=[create_method("eas")]))


def test_what_shortens_text_or_stands_for_it_is_refused():
    labels = {entry.cls.reuse for entry in list_methods() if entry.site in ("prompt", "memory", "tokens", "encoder")}
    assert labels == {"refused"}
