"""What counts as a prompt: what `generate()` says of a pass, and what a plain call leaves to be guessed."""

import pytest
import torch
from helpers.session_tools import GREEDY, untouched

import laconic
from laconic import SnapKV, StreamingLLM
from laconic.generating import NOTE, generated_in, noted

__all__ = ["untouched"]  # a fixture


def ids(n):
    return {"input_ids": torch.zeros(1, n, dtype=torch.long)}


@pytest.mark.parametrize(
    ("note", "tokens", "start", "logits", "generated"),
    [
        (None, 9, 0, 0, 0),  # a plain call: the first one and those over several tokens are prompt
        (None, 1, 0, 0, 0),
        (None, 9, 5, 9, 0),
        (None, 1, 5, 0, 1),
        ("recording", 9, 0, 0, 0),  # unless they may be taken back
        ("recording", 9, 5, 0, 9),
        (False, 9, 0, 1, 0),  # generate(), a prompt: whole, in chunks, with drafts after it
        (False, 1, 0, 1, 0),
        (False, 1, 5, 1, 0),
        (False, 9, 0, 4, 3),
        (False, 9, 5, torch.tensor([8]), 0),
        (True, 1, 5, 1, 1),  # generate(), what it has generated: a token, drafts to verify, an assistant's own passes
        (True, 4, 5, 4, 4),
        (True, 9, 0, 1, 1),
        (True, 1, 0, 1, 0),
    ],
)
def test_which_tokens_of_a_pass_were_generated(note, tokens, start, logits, generated):
    kwargs = ids(tokens) | {"logits_to_keep": logits}
    if isinstance(note, bool):
        kwargs[NOTE] = note
    assert generated_in(kwargs, start, note == "recording") == generated and NOTE not in kwargs


def test_the_note_leaves_no_trace(untouched):
    prepare = untouched.prepare_inputs_for_generation
    with noted(untouched):
        assert NOTE in untouched.prepare_inputs_for_generation(torch.zeros(1, 3, dtype=torch.long))
    assert untouched.prepare_inputs_for_generation == prepare and "prepare_inputs_for_generation" not in vars(untouched)


def test_a_preparation_of_the_users_own_is_kept(make_llama):
    model = make_llama(seed=3)
    own = model.prepare_inputs_for_generation = lambda *args, **kwargs: {"input_ids": args[0]}
    with noted(model):
        assert model.prepare_inputs_for_generation("ids", next_sequence_length=2) == {"input_ids": "ids", NOTE: True}
    assert model.prepare_inputs_for_generation is own


def test_a_model_that_cannot_generate_has_nothing_to_note(llama):
    with noted(llama.model):
        assert not hasattr(llama.model, "prepare_inputs_for_generation")


@pytest.mark.parametrize("chunk", [50, 33, 1])
def test_chunks_of_one_token_are_compressed(untouched, prompt, chunk):
    """The last chunk has 50, 1 and 1 tokens. A pass compresses to the budget of what came so far."""
    with laconic.compress(untouched, SnapKV(tokens=20)) as session:
        untouched.generate(prompt(1, 100), prefill_chunk_size=chunk, **GREEDY)
    assert session.stats.entries == [25.0] * 4 and session.stats.tokens_in == 100 and session.stats.tokens_out == 5


def test_a_question_of_one_token_is_prompt_in_generate(untouched, prompt):
    text = prompt(1, 41)
    with laconic.compress(untouched, SnapKV(tokens=20)) as session:
        untouched.generate(text[:, :40], max_new_tokens=1, do_sample=False)
        untouched.generate(text, past_key_values=session.cache, max_new_tokens=1, do_sample=False)
        assert session.stats.entries == [20.0] * 4 and session.stats.tokens_in == 41


def test_single_tokens_of_plain_calls_count_as_decoded(untouched, prompt):
    """They are stored whole by a method that compresses prompts, and evicted by one that evicts while decoding."""
    text = prompt(1, 40)
    for method, entries in ((SnapKV(tokens=20), 40.0), (StreamingLLM(tokens=20), 20.0)):
        with laconic.compress(untouched, method) as session:
            for token in text.split(1, 1):
                untouched(token, past_key_values=session.cache)
        assert session.stats.entries == [entries] * 4 and session.stats.tokens_out == 39
