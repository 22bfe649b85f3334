"""Contexts on disk: written once, asked many questions, refused when anything about them has changed."""

import json
import subprocess
import sys

import pytest
import torch
from helpers.method_tools import METHODS
from helpers.method_tools import method as method_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

import laconic
from laconic.cache import saved
from laconic.cache.saved import tokenizer_hash
from laconic.errors import SavedContextError

GREEDY = {"max_new_tokens": 6, "do_sample": False, "return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}


def ask(model, methods, cache, ids):
    with laconic.compress(model, *methods) as session:
        session.cache = cache
        with session.hold():
            out = model.generate(ids, past_key_values=cache, **GREEDY)
    return torch.stack(out.logits)


@pytest.fixture
def context(llama, prompt, tmp_path):
    """A file of 60 tokens compressed to 15 entries, the ids, and the logits of a question asked right away."""
    ids, question = prompt(1, 60), prompt(1, 7, seed=5)
    path, method = tmp_path / "talk.context", laconic.SnapKV(keep=0.25, window=4)
    with laconic.compress(llama, method) as session:
        llama(ids)
        session.save_cache(path, input_ids=ids, text="déjà vu", system="be brief")
    want = ask(llama, [method], session.cache, torch.cat([ids, question], 1))
    return path, torch.cat([ids, question], 1), want


def test_a_loaded_context_answers_as_if_it_had_never_been_saved(llama, context):
    path, ids, want = context
    loaded = laconic.load_cache(path, llama)
    assert [str(m) for m in loaded.methods] == ["snapkv(keep=0.25, window=4, kernel=5, pooling=avg)"]
    assert torch.equal(loaded.input_ids, ids[:, :60])
    assert (loaded.text, loaded.system) == ("déjà vu", "be brief")
    for _ in range(2):  # every question gets its own cache
        cache = loaded.cache()
        assert cache.seen == 60 and cache.nbytes == loaded.info["kv_bytes"] == 4 * 2 * 15 * 2 * 8 * 4
        torch.testing.assert_close(ask(llama, loaded.methods, cache, ids), want, atol=1e-6, rtol=1e-6)


def test_another_process_reads_it(llama, context, tmp_path):
    path, ids, want = context
    llama.save_pretrained(tmp_path / "model")
    code = f"""
import torch, laconic
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained({str(tmp_path / "model")!r}).eval()
saved = laconic.load_cache({str(path)!r}, model)
with laconic.compress(model, *saved.methods) as session:
    ids = torch.tensor({ids.tolist()})
    print(model.generate(ids, past_key_values=saved.cache(), max_new_tokens=1, pad_token_id=0)[0, -1].item())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == int(want[0, 0].argmax())


@pytest.mark.parametrize(
    "spec", ["adakv:scorer=knorm,keep=0.4", "h2o:keep=0.3", "expected_attention:tokens=9", "fastkv:keep=0.2,tsp_rate=0.6"]
)
def test_every_kind_of_part_continues(llama, prompt, tmp_path, spec):
    ids, more = prompt(2, 50), prompt(2, 5, seed=2)
    with laconic.compress(llama, laconic.create_method(spec)) as session:
        llama(ids)
        session.save_cache(tmp_path / "c")
    whole = torch.cat([ids, more], 1)
    want = ask(llama, session.methods, session.cache, whole)
    loaded = laconic.load_cache(tmp_path / "c", llama)
    assert [str(m) for m in loaded.methods] == [str(m) for m in session.methods]
    torch.testing.assert_close(ask(llama, loaded.methods, loaded.cache(), whole), want, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_from_a_file_and_a_fork_is_saved_like_what_it_is(llama, prompt, tmp_path, name):
    """With tuples among its parameters, too; a fork that went on stores frozen parts and its own."""
    ids, more, question = prompt(1, 60), prompt(1, 9, seed=2), prompt(1, 5, seed=3)
    given = method_of(name, keep=0.5)
    if name == "dapq":
        given = laconic.DapQ(keep=0.5, content="fixed", fixed_ids=(3, 4, 5))
    with laconic.compress(llama, given) as session:
        llama(ids)
        fork = session.cache.fork()
        with session.hold():
            llama(more, past_key_values=fork)
        session.save_cache(tmp_path / "c")
    loaded = laconic.load_cache(tmp_path / "c", llama)
    assert loaded.methods == (given,)
    whole = torch.cat([ids, more, question], 1)
    cache = loaded.cache()
    assert (cache.seen, cache.nbytes) == (69, fork.nbytes)
    want = ask(llama, [given], fork, whole)
    torch.testing.assert_close(ask(llama, loaded.methods, cache, whole), want, atol=1e-5, rtol=1e-5)


def test_sliding_layers_are_saved_too(prompt, tmp_path):
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=97,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    model = Gemma3ForCausalLM(config).eval()
    ids = prompt(1, 30)
    with laconic.compress(model, laconic.KNorm(keep=0.5)) as session:
        model(ids)
        session.save_cache(tmp_path / "c")
    whole = torch.cat([ids, prompt(1, 4, seed=3)], 1)
    want = ask(model, session.methods, session.cache, whole)
    loaded = laconic.load_cache(tmp_path / "c", model)
    torch.testing.assert_close(ask(model, loaded.methods, loaded.cache(), whole), want, atol=1e-6, rtol=1e-6)


def test_the_tensors_are_mapped_and_copied_once(llama, context):
    path, _, _ = context
    loaded = laconic.load_cache(path, llama)
    part = loaded.cache().layers[0].parts[0]
    mapped = loaded._tensors["layer.0.part.0.keys"]
    before = mapped.clone()
    part.keys.zero_()
    assert torch.equal(mapped, before)  # a cache is a copy: the next question finds the file as it was


def test_another_model_is_refused(llama, make_llama, context):
    with pytest.raises(SavedContextError, match="other weights"):
        laconic.load_cache(context[0], make_llama(seed=1))
    with pytest.raises(SavedContextError, match=r"holds float32, the model runs in bfloat16"):
        laconic.load_cache(context[0], make_llama().to(torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rope_parameters", {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}),
        ("sliding_window", 8),
        ("attn_logit_softcapping", 5.0),
    ],
)
def test_a_model_with_other_settings_is_refused_by_their_name(llama, make_llama, context, name, value):
    other = make_llama()
    setattr(other.config, name, value)
    with pytest.raises(SavedContextError, match=rf"was made with {name}=.*, the model has "):
        laconic.load_cache(context[0], other)


def test_truncated_and_altered_files_are_refused(llama, context, tmp_path):
    path, _, _ = context
    data = path.read_bytes()
    for size in (0, 5, 200, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(SavedContextError, match="truncated"):
            laconic.load_cache(tmp_path / "cut", llama)
    flipped = bytearray(data)
    flipped[-3] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    with pytest.raises(SavedContextError, match=r"altered: the checksum of .* does not match"):
        laconic.load_cache(tmp_path / "flipped", llama)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    info = json.loads(metadata["laconic"])
    info["tokens"] += 1
    save_file(load_file(path), tmp_path / "header", {**metadata, "laconic": json.dumps(info)})
    with pytest.raises(SavedContextError, match="checksum of its header"):
        laconic.load_cache(tmp_path / "header", llama)


def test_missing_and_foreign_files_are_refused(llama, tmp_path):
    with pytest.raises(SavedContextError, match="does not exist"):
        laconic.load_cache(tmp_path / "none", llama)
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(SavedContextError, match="not a context that laconic saved"):
        laconic.load_cache(tmp_path / "other", llama)


class Vocabulary:
    def __init__(self, *words):
        self.words = words

    def __len__(self):
        return len(self.words)

    def get_vocab(self):
        return {word: i for i, word in enumerate(self.words)}


def test_a_vocabulary_is_hashed_again_only_when_tokens_were_added(monkeypatch):
    tokenizer = Vocabulary("a", "b")
    first = tokenizer_hash(tokenizer)
    assert first == tokenizer_hash(Vocabulary("a", "b")) != tokenizer_hash(Vocabulary("b", "a"))
    monkeypatch.setattr(Vocabulary, "get_vocab", lambda self: pytest.fail("hashed again"))
    assert tokenizer_hash(tokenizer) == first
    monkeypatch.undo()
    tokenizer.words += ("c",)
    assert tokenizer_hash(tokenizer) == tokenizer_hash(Vocabulary("a", "b", "c")) != first


def test_another_tokenizer_is_refused(llama, prompt, tmp_path):
    with laconic.compress(llama) as session:
        llama(prompt(1, 9))
        session.save_cache(tmp_path / "c", tokenizer=Vocabulary("a", "b"))
    assert laconic.load_cache(tmp_path / "c", llama, Vocabulary("a", "b")).methods == ()
    with pytest.raises(SavedContextError, match="another tokenizer"):
        laconic.load_cache(tmp_path / "c", llama, Vocabulary("b", "a"))


def test_nothing_to_save_and_nowhere_to_write(llama, prompt, tmp_path, monkeypatch):
    with laconic.compress(llama) as session:
        with pytest.raises(laconic.SessionError, match="nothing has run"):
            session.save_cache(tmp_path / "c")
        llama(prompt(1, 9))
        with pytest.raises(SavedContextError, match="cannot write"):
            session.save_cache(tmp_path / "missing" / "c")
        session.save_cache(tmp_path / "c")

        def fail(tensors, path, metadata):
            path.write_bytes(b"half")
            raise OSError("no space left")

        monkeypatch.setattr(saved, "save_file", fail)
        with pytest.raises(SavedContextError, match=r"cannot write .*no space left"):
            session.save_cache(tmp_path / "c")
    assert saved.header(tmp_path / "c")["tokens"] == 9  # the old file stays, and nothing beside it
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
