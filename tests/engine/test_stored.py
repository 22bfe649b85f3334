"""A context that a store holds is not read again, and answers as if it had been."""

import contextlib

import pytest
import torch
from helpers.bench_tools import tiny
from helpers.image_tools import small_vlm

import laconic
from laconic.errors import BudgetError, SessionError, StoreError
from laconic.memory.store import SegmentStore
from laconic.prompts.text import PromptError
from laconic.tasks import find_task

TEXT = "The code for falcon is 4815263. The code for heron is 1623421. " * 6
QUESTIONS = ("What is the code for falcon?", "And for heron?")


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture
def store(tmp_path):
    return SegmentStore(tmp_path)


@contextlib.contextmanager
def passes(model):
    """How many tokens each call of the model brings."""
    seen = []

    def note(module, args, kwargs):
        ids = kwargs.get("input_ids", args[0] if args else None)
        seen.append(ids.shape[1])

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


@pytest.mark.parametrize(
    "specs", [(), ("knorm:keep=0.5",), ("kivi:bits=4",), ("snapkv:keep=0.3", "kivi"), ("adakv:keep=0.5",)]
)
def test_the_second_reading_runs_nothing(model, store, specs):
    with passes(model[0]) as first:
        made = laconic.read(*model, TEXT, *specs, store=store)
    assert sum(first) == len(made.ids)
    wanted = [made.ask(question, max_new_tokens=6).ids for question in QUESTIONS]
    plain = laconic.read(*model, TEXT, *specs)
    assert wanted == [plain.ask(question, max_new_tokens=6).ids for question in QUESTIONS]
    for again in (SegmentStore(store.folder.parents[1]), store):
        with passes(model[0]) as second:
            found = laconic.read(*model, TEXT, *specs, store=again)
        assert (
            second == []
            and found.stored
            and not made.stored
            and found.ids == made.ids
            and found.stats.kv_bytes == made.stats.kv_bytes
        )
        assert [found.ask(question, max_new_tokens=6).ids for question in QUESTIONS] == wanted
        assert found.ask(QUESTIONS[1], follow_up=True).text is not None
    (entry,) = store.entries()
    assert entry.facts["tokens"] == f"{len(made.ids):,}" and entry.facts["kind"] == "context"
    assert not any("falcon" in value for value in entry.facts.values())  # no word of the text


def test_true_is_the_store_in_the_cache_folder(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    laconic.read(*model, TEXT, "knorm:keep=0.5", store=True)
    assert len(SegmentStore().entries()) == 1 and SegmentStore().folder.is_relative_to(tmp_path)


def test_an_image_is_part_of_what_was_read(store):
    model, processor = small_vlm()
    images = [find_task("reading").sample(1_000_000 + i).shown()[0] for i in range(2)]
    made = laconic.read(model, processor, "A scene.", "snapkv:keep=0.5", images=images[:1], store=store)
    with passes(model) as seen:
        found = laconic.read(model, processor, "A scene.", "snapkv:keep=0.5", images=images[:1], store=store)
        assert seen == []
        laconic.read(model, processor, "A scene.", "snapkv:keep=0.5", images=images[1:], store=store)
    assert len(seen) == 1 and len(store.entries()) == 2
    ask = {"max_new_tokens": 5}
    assert found.images == 1 and found.ask("What is there?", **ask).ids == made.ask("What is there?", **ask).ids


def test_protected_spans_are_kept_apart_and_a_later_question_does_not_look_for_them(model, store):
    for protect in ((), "falcon", (3, 9)):
        for _ in range(2):
            context = laconic.read(*model, TEXT, "knorm:keep=0.2", protect=protect, store=store)
            assert context.ask(QUESTIONS[1], max_new_tokens=2).ids
    assert len(store.entries()) == 3


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_damaged_context_is_read_again_and_a_note_says_so(model, store, suffix):
    laconic.read(*model, TEXT, "knorm:keep=0.5", store=store)
    path = store.folder / (store.all_keys()[0] + suffix)
    path.write_bytes(path.read_bytes()[:-3])
    with passes(model[0]) as seen:
        context = laconic.read(*model, TEXT, "knorm:keep=0.5", store=store)
    assert len(seen) == 1 and "what was stored is damaged" in context.notes[0] and store.verify() == []
    assert not laconic.read(*model, TEXT, "knorm:keep=0.5", store=store).notes


def test_what_went_just_before_it_was_opened_is_read_again(model, store, monkeypatch):
    laconic.read(*model, TEXT, "knorm:keep=0.5", store=store)
    get = store.get

    def get_and_lose(key):
        path = get(key)
        monkeypatch.undo()
        store.remove(key)
        return path

    monkeypatch.setattr(store, "get", get_and_lose)
    with passes(model[0]) as seen:
        assert laconic.read(*model, TEXT, "knorm:keep=0.5", store=store).ask("?", max_new_tokens=1).ids
    assert len(seen) == 2 and len(store.entries()) == 1


def test_what_cannot_be_read_is_not_stored(model, store):
    class Own(laconic.KeyDiff):
        def before_prompt(self, step): ...
        def before_decoding(self, step): ...

    with pytest.raises(BudgetError):
        laconic.read(*model, "a b c", "knorm:keep=0.0001", protect=(0, 4), store=store)
    with pytest.raises(SessionError, match="depend on the prompt"):
        laconic.read(*model, TEXT, Own(keep=0.5), store=store)
    assert store.entries() == []


def test_a_saved_context_or_a_history_goes_with_no_store(model, store, tmp_path):
    from laconic.engine.engine import Engine, Request
    from laconic.engine.stored import read_stored

    laconic.read(*model, TEXT, "knorm:keep=0.5").save(tmp_path / "c")
    saved = laconic.load_cache(tmp_path / "c", *model)
    with pytest.raises(PromptError, match="give the file alone"):
        laconic.read(*model, saved, store=store)
    with pytest.raises(PromptError, match="leave out history"):
        read_stored(Engine(*model), Request(context=TEXT, history=[{"role": "user", "content": "Hi"}]), store)


def test_methods_that_change_the_text_go_with_no_store(model, store):
    for name in ("truncate_text", "mean_pool"):
        with pytest.raises(PromptError, match=f"{name} changes the text"):
            laconic.read(*model, TEXT, name, store=store)


def test_a_store_that_refuses_is_a_clear_error(model, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="cannot write into"):
        laconic.read(*model, TEXT, store=SegmentStore(tmp_path / "file"))
    assert torch.is_grad_enabled()
