"""Segments from a store: the same soft tokens as without one, and no call of the compressor for what was read before."""

import pytest
import torch
from helpers.memory_tools import artifact_of

import laconic
from laconic.errors import ConflictError
from laconic.memory.memory import Memory
from laconic.memory.store import SegmentStore
from laconic.methods.memory.autocompressor.network import Summaries
from laconic.methods.memory.compllm.network import ConceptEmbeddings
from laconic.methods.memory.icae.network import MemorySlots

FACTS = "testbed/facts"
S = 8


@pytest.fixture(scope="module")
def loaded():
    return laconic.load(FACTS)


@pytest.fixture(scope="module")
def spec(loaded, tmp_path_factory):
    torch.manual_seed(0)
    network, file = ConceptEmbeddings(loaded[0], S, loaded[1].eos_token_id), tmp_path_factory.mktemp("a") / "c.safetensors"
    network.gain.data.fill_(0.7)
    data = {"keeps": [0.5, 0.25], "segment": S, "marker": loaded[1].eos_token_id}
    return artifact_of("compllm", loaded[0], network, file, **data) + ",keep=0.5"


@pytest.fixture
def store(tmp_path):
    return SegmentStore(tmp_path / "store")


@pytest.fixture
def calls(monkeypatch):
    """Rows that the compressor is given, call by call."""
    seen, forward = [], ConceptEmbeddings.forward

    def counted(self, model, ids, slots):
        seen.append(len(ids))
        return forward(self, model, ids, slots)

    monkeypatch.setattr(ConceptEmbeddings, "forward", counted)
    return seen


def document(loaded, n, seed=0):
    facts = sorted(token for token in loaded[1].get_vocab() if len(token) == 2 and token[1].isdigit())
    drawn = torch.randint(len(facts), (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [loaded[1].convert_tokens_to_ids(facts[i]) for i in drawn]


def test_soft_tokens_are_those_without_a_store(loaded, spec, store):
    ids = document(loaded, 3 * S + 3)
    want = Memory.of(*loaded, ids, spec)
    for made in (4, 0):
        got = Memory.of(*loaded, ids, spec, store=store)
        torch.testing.assert_close(got.soft, want.soft, atol=1e-5, rtol=1e-5)
        assert (got.segments, got.made, got.ids) == (4, made, want.ids)
        assert got.flops == (want.flops if made else 0)


def test_a_document_that_was_read_costs_no_call(loaded, spec, store, calls):
    ids = document(loaded, 4 * S)
    Memory.of(*loaded, ids, spec, store=store)
    assert calls == [4]
    Memory.of(*loaded, ids, spec, store=store)
    Memory.of(*loaded, ids[2 * S :] + ids[:S], spec, store=store)  # another document of the same segments
    assert calls == [4]


def test_an_edited_document_costs_its_changed_segments(loaded, spec, store, calls):
    ids = document(loaded, 6 * S)
    first = Memory.of(*loaded, ids, spec, store=store)
    for place in (S + 2, 4 * S):
        ids[place] = next(token for token in ids if token != ids[place])
    calls.clear()
    edited = Memory.of(*loaded, ids, spec, store=store)
    assert calls == [2] and (edited.segments, edited.made) == (6, 2)
    assert edited.flops == first.flops * 2 // 6
    changed = (edited.soft != first.soft).any(1).view(6, -1).any(1)
    assert changed.tolist() == [False, True, False, False, True, False]


def test_equal_segments_are_compressed_once(loaded, spec, store, calls):
    ids = document(loaded, S) * 5
    memory = Memory.of(*loaded, ids, spec, store=store)
    assert calls == [1] and (memory.segments, memory.made) == (5, 1)
    torch.testing.assert_close(memory.soft, Memory.of(*loaded, ids, spec).soft, atol=1e-5, rtol=1e-5)


def test_another_share_artifact_or_method_has_segments_of_its_own(loaded, spec, store, tmp_path, calls):
    ids = document(loaded, 2 * S)
    Memory.of(*loaded, ids, spec, store=store)
    Memory.of(*loaded, ids, spec.replace("keep=0.5", "keep=0.25"), store=store)
    torch.manual_seed(1)
    network = ConceptEmbeddings(loaded[0], S, loaded[1].eos_token_id)
    network.linear.weight.data.add_(1.0)
    data = {"keeps": [0.5], "segment": S, "marker": loaded[1].eos_token_id}
    other = artifact_of("compllm", loaded[0], network, tmp_path / "other.safetensors", **data) + ",keep=0.5"
    assert Memory.of(*loaded, ids, other, store=store).made == 2
    assert calls == [2, 2, 2]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((tmp_path / "other.safetensors").read_bytes())
    assert Memory.of(*loaded, ids, f"compllm:artifact={copy},keep=0.5", store=store).made == 0  # its content counts


def test_what_is_damaged_or_gone_is_compressed_again(loaded, spec, store):
    ids = document(loaded, 3 * S)
    want = Memory.of(*loaded, ids, spec, store=store).soft
    first, second, _ = sorted(store.folder.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:-4])
    second.unlink()
    again = Memory.of(*loaded, ids, spec, store=store)
    assert again.made == 2 and torch.equal(again.soft, want)
    assert not store.verify() and Memory.of(*loaded, ids, spec, store=store).made == 0


def test_what_stands_after_all_segments_is_there(loaded, store, tmp_path):
    """ICAE asks for an answer after its memory tokens."""
    torch.manual_seed(0)
    network = MemorySlots(loaded[0], S, 4)
    own = artifact_of("icae", loaded[0], network, tmp_path / "i.safetensors", slots=4)
    ids = document(loaded, 2 * S + 1)
    for _ in range(2):
        got = Memory.of(*loaded, ids, own + ",keep=0.5", store=store)
        torch.testing.assert_close(got.soft, Memory.of(*loaded, ids, own + ",keep=0.5").soft, atol=1e-5, rtol=1e-5)


def test_segments_that_depend_on_others_are_refused(loaded, store, tmp_path):
    network = Summaries(loaded[0], S, 4, loaded[1].eos_token_id)
    data = {"keeps": [0.5], "segment": S, "slots": 4, "marker": loaded[1].eos_token_id}
    own = artifact_of("autocompressor", loaded[0], network, tmp_path / "a.safetensors", **data) + ",keep=0.5"
    with pytest.raises(ConflictError, match="depends on what came before it"):
        Memory.of(*loaded, document(loaded, 2 * S), own, store=store)


def test_memories_of_several_documents_count_together(loaded, spec, store):
    one, two = document(loaded, 2 * S), document(loaded, 3 * S, seed=1)
    Memory.of(*loaded, one, spec, store=store)
    Memory.of(*loaded, one, spec.replace("keep=0.5", "keep=0.25"), store=store)
    with pytest.raises(ConflictError, match=r"keep=0.5 and keep=0.25 do not go into one"):
        Memory.joined([Memory.of(*loaded, one, spec), Memory.of(*loaded, one, spec.replace("keep=0.5", "keep=0.25"))])
    with pytest.raises(ValueError, match="no memories to join"):
        Memory.joined([])
    both = Memory.joined([Memory.of(*loaded, ids, spec, store=store) for ids in (one, two)])
    assert (both.segments, both.made) == (5, 3) and both.seconds > 0


def test_many_segments_go_through_in_batches(loaded, spec, store, calls, monkeypatch):
    monkeypatch.setattr("laconic.memory.segments.SEGMENTS", 2)
    Memory.of(*loaded, document(loaded, 5 * S), spec, store=store)
    assert calls == [2, 2, 1]


def test_segments_of_another_precision_of_the_model_are_others(loaded, spec, store):
    ids = document(loaded, 2 * S)
    Memory.of(*loaded, ids, spec, store=store)
    model, tokenizer = laconic.load(FACTS)
    Memory.of(model, tokenizer, ids, spec, store=store)
    assert len(store.entries()) == 2
    assert Memory.of(model.to(torch.bfloat16), tokenizer, ids, spec, store=store).made == 2


def test_an_entry_that_goes_before_it_is_opened_is_compressed_again(loaded, spec, store, monkeypatch):
    ids = document(loaded, 2 * S)
    Memory.of(*loaded, ids, spec, store=store)
    monkeypatch.setattr(SegmentStore, "get", lambda self, key: self.folder / "gone.safetensors")
    assert Memory.of(*loaded, ids, spec).entries == S
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SegmentStore, "_servable", lambda self, key: False)
        assert Memory.of(*loaded, ids, spec, store=store).made == 2
