"""Protected tokens: how they are found in a prompt, and that every method keeps them in every layer and head."""

import dataclasses

import pytest
import torch
from helpers.method_tools import CHOOSERS, method
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

import laconic
from laconic import BudgetError, ProtectError, SessionError, SnapKV
from laconic.protect import Protection

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def words():
    """w0 .. w96, one token per word."""
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", padding_side="left")


def byte_level(merges=()):
    """Byte-level BPE: one token per byte, but for the merges; a letter like ü or 漢 takes several tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    for a, b in merges:
        vocab[a + b] = len(vocab)
    tokenizer = Tokenizer(BPE(vocab, list(merges)))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]})
    fast.chat_template = TEMPLATE
    return fast


@pytest.fixture(scope="module")
def bytes_():
    return byte_level()


def spans(tokenizer, text, protect):
    """Protected runs of tokens of a text, as decoded strings."""
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    protection = Protection([protect], tokenizer)
    mask = protection.mask(ids, torch.ones_like(ids, dtype=torch.bool), ids.shape[1])[0].tolist()
    runs, run = [], []
    for token, on in zip([*ids[0].tolist(), 0], [*mask, False], strict=True):
        if on:
            run.append(token)
        elif run:
            runs.append(tokenizer.decode(run))
            run = []
    return runs


# -- finding ---------------------------------------------------------------------------------------------------------
def test_substring_once_and_several_times(bytes_):
    assert spans(bytes_, "keep this, drop that", "this") == ["this"]
    assert spans(bytes_, "key=1; other; key=1; end", "key=1") == ["key=1", "key=1"]
    assert spans(bytes_, "aaaa", "aa") == ["aaaa"]  # side by side
    assert spans(bytes_, "the whole text", "the whole text") == ["the whole text"]


def test_overlapping_occurrences_are_found_from_the_left(bytes_):
    assert spans(bytes_, "ababa!", "aba") == ["aba"]


@pytest.mark.parametrize("text", ["Grüße", "漢字", "ß", "🙂", "naïve 🙂 漢"])
def test_unicode(bytes_, text):
    assert spans(bytes_, f"eins {text} zwei {text}.", text) == [text, text]


def test_a_token_that_straddles_the_edge_is_protected_whole():
    tokenizer = byte_level([("t", "h"), ("th", "e"), ("e", "n")])
    assert tokenizer.tokenize("other then") == ["o", "the", "r", "Ġ", "the", "n"]
    assert spans(tokenizer, "other then", "her") == ["ther"]  # "the" holds the h and the e
    assert spans(tokenizer, "other then", "hen") == ["then"]
    assert spans(tokenizer, "other then", "h") == ["the", "the"]


def test_several_specs_and_ranges(bytes_):
    assert spans(bytes_, "abcdefghij", [(0, 2), "efg", (9, 10)]) == ["ab", "efg", "j"]
    assert spans(bytes_, "abcdefghij", (3, 5)) == ["de"]
    assert spans(bytes_, "abcdefghij", ["bc", (2, 4)]) == ["bcd"]


def chat(tokenizer, system, user="What?"):
    messages = [{"role": "system", "content": system}] * (system is not None) + [{"role": "user", "content": user}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("system", ["Be brief.", "Tools: grüße(x), f(y)\n- never guess", "<b>no system</b>", "x"])
def test_system_turn(bytes_, system):
    found = spans(bytes_, chat(bytes_, system), "system")
    assert len(found) == 1
    assert found[0].startswith(f"<|system|>{system}<|end|>")
    assert "What?" not in found[0]


def test_no_system_turn_in_the_prompt(bytes_):
    assert spans(bytes_, chat(bytes_, None), "system") == []


def test_system_needs_a_chat_template(words):
    with pytest.raises(ProtectError, match="this tokenizer has no chat template"):
        spans(words, "w1 w2", "system")


def test_a_template_that_drops_the_system_turn():
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(ProtectError, match="drops the system message"):
        spans(tokenizer, "hello", "system")


def test_a_template_that_refuses_a_system_turn():
    tokenizer = byte_level()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ProtectError, match="refuses a system message"):
        spans(tokenizer, "hello", "system")


@pytest.mark.parametrize(
    ("protect", "message"),
    [
        ("text", r"needs the tokenizer: pass compress\(..., tokenizer=tokenizer\)"),
        ((5, 5), r"a token range is \(start, stop\) with 0 <= start < stop"),
        ((5, 2), "a token range is"),
        ((-3, 2), "a token range is"),
        ([(0, 2), 7], "a token range is"),
        ([(0, 1, 2)], "a token range is"),
        ((0.5, 2), "a token range is"),
    ],
)
def test_bad_specs(llama, protect, message):
    with pytest.raises(ProtectError, match=message):
        laconic.compress(llama, SnapKV(keep=0.5), protect=protect)
    with pytest.raises(ProtectError, match=message):
        laconic.compress(llama, SnapKV(keep=0.5, protect=protect))


def test_empty_text(llama, words):
    with pytest.raises(ProtectError, match="is empty; give a substring"):
        laconic.compress(llama, SnapKV(keep=0.5), protect="", tokenizer=words)


# -- keeping ---------------------------------------------------------------------------------------------------------
def held(session, tokens, row=0):
    """True when every layer and head stores all of `tokens`."""
    return all(set(tokens) <= set(session.kept(layer, head, row).tolist()) for layer in range(4) for head in range(2))


@pytest.mark.parametrize("name", CHOOSERS)
def test_every_method_keeps_what_is_protected(llama, prompt, name):
    """Everywhere, also behind a shortened stream, and while decoding goes on evicting."""
    inside = [3, 4, 5, 21]
    with laconic.compress(llama, method(name, keep=0.25), protect=[(3, 6), (21, 22)]) as session:
        llama.generate(prompt(1, 40), max_new_tokens=12, do_sample=False)
        assert held(session, inside)
        assert session.stats.achieved < 0.6
    with laconic.compress(llama, method(name, keep=0.25)) as session:
        llama.generate(prompt(1, 40), max_new_tokens=12, do_sample=False)
        assert not held(session, inside), "nothing was at stake"


@pytest.mark.parametrize("name", CHOOSERS)
def test_per_method_is_the_same_as_per_session(llama, prompt, name):
    ids, kept = prompt(1, 40), []
    for mine, session_wide in (((3, 6), ()), ((), (3, 6))):
        compressor = method(name, keep=0.25, protect=mine)
        with laconic.compress(llama, compressor, protect=session_wide) as session:
            llama(ids)
            kept.append([session.kept(layer, head).tolist() for layer in range(4) for head in range(2)])
    assert kept[0] == kept[1]


@pytest.mark.parametrize("name", CHOOSERS)
def test_protected_tokens_count_against_the_budget(llama, prompt, name):
    sizes = []
    for protect in ((), (3, 6)):
        with laconic.compress(llama, method(name, keep=0.25), protect=protect) as session:
            llama(prompt(1, 40))
            sizes.append(session.stats.entries)
    if getattr(
        method(name, keep=0.25), "cuts_late", False
    ):  # layers compete, so protection may move entries from one to another
        sizes = [sum(entries) for entries in sizes]
    assert sizes[0] == sizes[1]


@pytest.mark.filterwarnings("ignore:fastkv was asked")
@pytest.mark.parametrize("name", CHOOSERS)
def test_padded_batch(llama, prompt, words, name):
    """Ranges and texts speak of real tokens; padding does not shift them."""
    long, short = prompt(1, 40), prompt(1, 28, seed=1)
    long[0, 10:13], short[0, 5:8] = torch.tensor([90, 91, 92]), torch.tensor([90, 91, 92])
    batch = torch.cat([long, torch.cat([torch.zeros(1, 12, dtype=torch.long), short], 1)])
    mask = torch.ones_like(batch)
    mask[1, :12] = 0
    with laconic.compress(llama, method(name, keep=0.3), protect=["w90 w91 w92", (1, 2)], tokenizer=words) as session:
        llama(batch, attention_mask=mask)
    assert held(session, [1, 10, 11, 12], 0)
    assert held(session, [13, 17, 18, 19], 1)


@pytest.mark.parametrize("name", CHOOSERS)
def test_chunked_prefill(llama, prompt, words, name):
    ids = prompt(1, 40)
    ids[0, 20:22] = torch.tensor([90, 91])
    compressor = laconic.FastKV(tokens=8, tsp_rate=1.0) if name == "fastkv" else method(name, tokens=8)
    with laconic.compress(llama, compressor, protect=["w90 w91", (2, 4)], tokenizer=words) as session:
        llama.generate(ids, max_new_tokens=2, do_sample=False, prefill_chunk_size=16)
    assert held(session, [2, 3, 20, 21])


def test_a_text_over_two_chunks_is_refused(llama, prompt, words):
    ids = prompt(1, 40)
    ids[0, 15:17] = torch.tensor([90, 91])
    with (
        pytest.raises(ProtectError, match="spans two prefill chunks; use a larger prefill_chunk_size"),
        laconic.compress(llama, SnapKV(keep=0.5), protect="w90 w91", tokenizer=words),
    ):
        llama.generate(ids, max_new_tokens=1, prefill_chunk_size=16)


def test_a_range_over_two_chunks_is_kept(llama, prompt):
    with laconic.compress(llama, SnapKV(tokens=8, window=2), protect=(14, 18)) as session:
        llama.generate(prompt(1, 40), max_new_tokens=1, do_sample=False, prefill_chunk_size=16)
    assert held(session, [14, 15, 16, 17])


def test_beams_and_several_sequences(llama, prompt, words):
    ids = prompt(1, 40)
    ids[0, 20:22] = torch.tensor([90, 91])
    for options in ({"num_beams": 3, "do_sample": False}, {"do_sample": True, "num_return_sequences": 3}):
        with laconic.compress(llama, laconic.H2O(keep=0.25), protect="w90 w91", tokenizer=words) as session:
            llama.generate(ids, max_new_tokens=8, **options)
        assert all(held(session, [20, 21], row) for row in range(3))


def test_a_later_turn_is_not_the_protected_prompt(llama, prompt, words):
    """The text is looked for in the first turn's prompt; in a later one it may be evicted, but stays where it was."""
    ids = prompt(1, 40)
    ids[0, 20:22] = torch.tensor([90, 91])
    with laconic.compress(llama, SnapKV(tokens=8, window=2), protect="w90 w91", tokenizer=words) as session:
        first = llama.generate(ids, max_new_tokens=3, do_sample=False)
        more = torch.cat([first, ids], 1)
        llama.generate(more, past_key_values=session.cache, max_new_tokens=3, do_sample=False)
        assert held(session, [20, 21])
        assert not held(session, [63, 64])
        llama(ids)  # a new prompt is searched anew
        assert held(session, [20, 21])


def test_too_small_a_budget(llama, prompt):
    with (
        pytest.raises(BudgetError, match=r"snapkv: 10 tokens are protected but the budget \(tokens=8\) leaves 8 entries"),
        laconic.compress(llama, SnapKV(tokens=8), protect=(0, 10)),
    ):
        llama(prompt(1, 40))


def test_all_of_the_budget_may_be_protected(llama, prompt):
    with laconic.compress(llama, SnapKV(tokens=8), protect=(3, 11)) as session:
        llama(prompt(1, 40))
    assert [session.kept(layer, head).tolist() for layer in range(4) for head in range(2)] == [list(range(3, 11))] * 8


@pytest.mark.parametrize(
    ("protect", "message"),
    [
        ("w90 w91", r"this text is not in the prompt \(sequence 0, 20 tokens\)"),
        ((18, 30), "ends beyond the prompt of 20 tokens"),
    ],
)
def test_not_found(llama, prompt, words, protect, message):
    ids = prompt(1, 20).clamp(max=80)
    with laconic.compress(llama, SnapKV(keep=0.5), protect=protect, tokenizer=words):
        with pytest.raises(ProtectError, match=message):
            llama.generate(ids, max_new_tokens=3)
        llama(torch.cat([ids, torch.tensor([[90, 91]]), ids], 1))


def test_not_found_is_said_at_the_latest_when_the_session_ends(llama, prompt, words):
    ids = prompt(1, 20).clamp(max=80)
    session = laconic.compress(llama, SnapKV(keep=0.5), protect="w90 w91", tokenizer=words)
    with pytest.raises(ProtectError, match="this text is not in the prompt"), session:
        llama(ids)
    assert llama.config._attn_implementation == "sdpa"
    with pytest.raises(ZeroDivisionError), session:  # another error is not hidden by this one
        llama(ids)
        raise ZeroDivisionError


@pytest.mark.filterwarnings("ignore:fastkv was asked")
def test_what_must_travel_has_to_fit(llama, prompt):
    method = laconic.FastKV(keep=0.5, tsp_tokens=6)
    with laconic.compress(llama, method, protect=(2, 7)) as session:
        llama(prompt(1, 40))
    assert held(session, range(2, 7))
    with (
        pytest.raises(BudgetError, match=r"fastkv: 7 tokens must travel on .* but only 6 may"),
        laconic.compress(llama, method, protect=(2, 8)),
    ):
        llama(prompt(1, 40))


def test_not_found_in_one_row_names_it(llama, prompt, words):
    ids = prompt(2, 20).clamp(max=80)
    ids[0, 3:5] = torch.tensor([90, 91])
    with (
        pytest.raises(ProtectError, match=r"not in the prompt \(sequence 1, 20 tokens\)"),
        laconic.compress(llama, SnapKV(keep=0.5), protect="w90 w91", tokenizer=words),
    ):
        llama.generate(ids, max_new_tokens=3)


def test_no_system_turn_is_said(make_llama):
    tokenizer = byte_level()
    model = make_llama()
    model.resize_token_embeddings(len(tokenizer))
    ids = torch.tensor([tokenizer(chat(tokenizer, None))["input_ids"]])
    with laconic.compress(model, SnapKV(keep=0.9), protect="system", tokenizer=tokenizer) as session:
        with pytest.raises(ProtectError, match="the prompt has no system turn"):
            model.generate(ids, max_new_tokens=3)
        text = chat(tokenizer, "Be brief.", "What is it? " * 8)
        model.generate(torch.tensor([tokenizer(text)["input_ids"]]), max_new_tokens=3)
        assert held(session, range(11))


def test_embeddings_without_ids(llama, prompt):
    embeds = llama.get_input_embeddings()(prompt(1, 20))
    with laconic.compress(llama, SnapKV(keep=0.5), protect=(0, 2)), pytest.raises(SessionError, match="needs input_ids"):
        llama(inputs_embeds=embeds)


def test_protect_is_a_parameter_of_every_method():
    for entry in laconic.list_methods():
        assert "protect" in {f.name for f in dataclasses.fields(entry.cls)}
