"""Between a prompt and its answer: tokens are forced, vectors are fed, and nothing is left behind."""

from dataclasses import dataclass

import pytest
import torch
from helpers.thinking import LATENT, MARK, TOKENIZER, answered, asked, tiny_thinker

import laconic
from laconic.decode.contract import Latents, ReasoningMethod
from laconic.errors import BudgetError, ConflictError, SessionError

CAP = "truncate_thought:cap=3"


@dataclass(kw_only=True)
class Wordless(ReasoningMethod):
    """Feeds the last state, `steps` times; then the mark."""

    steps: int = 3
    name = "wordless"

    def latents(self, thought, hidden, logits):
        done = thought.thinking >= self.steps
        return Latents(hidden, ~done, done)


@pytest.fixture(scope="module")
def model():
    return tiny_thinker()


def generated(model, methods, ids, new=12, **options):
    with laconic.compress(model, *methods, tokenizer=TOKENIZER) as session:
        return answered(model, ids, new, **options), session


def by_hand(model, ids, inserted, new):
    """Greedy decoding without a cache: what `inserted` {place: token} names is put in the place of the model's choice."""
    said = []
    for i in range(new):
        now = torch.cat([ids, torch.tensor([said], dtype=torch.long)], 1)
        said.append(inserted.get(i, int(model(now).logits[0, -1].argmax())))
    return said


def test_what_is_forced_is_what_the_model_goes_on_from(model):
    ids = asked()
    (said,), _ = generated(model, [CAP], ids)
    assert said == by_hand(model, ids, {3: MARK}, 12)


def test_neutral_is_the_model(model):
    ids = asked(2)
    said, _ = generated(model, ["truncate_thought"], ids)
    assert said == answered(model, ids)


def test_a_vector_takes_the_place_of_the_placeholder(model):
    """Reference: the whole prefix as embeddings, run anew for every token."""
    ids, method = asked(), Wordless(steps=3)
    (said,), _ = generated(model, [method], ids)
    assert said[:4] == [LATENT] * 3 + [MARK]
    table = model.get_input_embeddings()
    x = table(ids)
    for _ in range(3):
        x = torch.cat([x, model.model(inputs_embeds=x).last_hidden_state[:, -1:]], 1)
    for token in said[3:]:
        if token != MARK:
            assert int(model(inputs_embeds=x).logits[0, -1].argmax()) == token
        x = torch.cat([x, table(torch.tensor([[token]]))], 1)


@pytest.mark.parametrize("method", [CAP, Wordless(steps=2)], ids=["cap", "wordless"])
def test_a_padded_batch_says_what_each_row_says_alone(model, method):
    ids = asked(3)
    ids[0, :5] = 0
    together, _ = generated(model, [method], ids)
    alone = [generated(model, [method], row[row != 0][None])[0][0] for row in ids]
    assert together == alone


def test_it_goes_together_with_a_method_for_the_cache(model):
    (said,), session = generated(model, [CAP, "streaming_llm:keep=0.5"], asked(1, 40))
    assert said[3] == MARK and session.stats.achieved < 0.7
    with pytest.raises(ConflictError, match="thinking"):
        laconic.compress(model, CAP, "no_thought", tokenizer=TOKENIZER)


def test_a_prompt_in_chunks_and_a_second_turn_begin_to_think_anew(model):
    ids = asked(1, 40)
    whole, _ = generated(model, [CAP], ids)
    assert generated(model, [CAP], ids, prefill_chunk_size=7)[0] == whole
    with laconic.compress(model, CAP, tokenizer=TOKENIZER) as session:
        first = answered(model, ids, 6)[0]
        more = torch.cat([ids, torch.tensor([first]), asked(1, 9, seed=3)], 1)
        out = model.generate(more, past_key_values=session.cache, do_sample=False, max_new_tokens=6, pad_token_id=0)
    assert first[3] == MARK and out[0, more.shape[1] :].tolist()[3] == MARK


def test_sampling_cannot_avoid_what_is_forced(model):
    torch.manual_seed(0)
    said, _ = generated(model, [CAP], asked(4), do_sample=True, temperature=3.0, top_k=5)
    assert all(row[3] == MARK for row in said)


def test_everything_is_as_before_also_after_an_exception(model):
    ids = asked()
    before = answered(model, ids)
    with pytest.raises(KeyError), laconic.compress(model, CAP, tokenizer=TOKENIZER):
        raise KeyError
    assert answered(model, ids) == before and not model._forward_hooks


def test_what_cannot_be_followed_is_refused(model):
    with laconic.compress(model, tokenizer=TOKENIZER) as session:
        answered(model, asked(), 2)
        cache = session.cache
    with laconic.compress(model, CAP, tokenizer=TOKENIZER), pytest.raises(SessionError, match="token by token"):
        model(torch.tensor([[9]]), past_key_values=cache)
    plain = Wordless()
    other = TOKENIZER.__class__(tokenizer_object=TOKENIZER.backend_tokenizer.from_str(TOKENIZER.backend_tokenizer.to_str()))
    other.get_vocab = lambda: {"###": MARK}
    with pytest.raises(SessionError, match="no token <latent>"):
        laconic.compress(model, plain, tokenizer=other)


def test_a_budget_of_entries_is_refused_and_goes_to_the_others(model):
    with pytest.raises(BudgetError, match="no budget of entries"):
        laconic.create_method("truncate_thought", keep=0.5)
    cap, cache = laconic.specs.create_methods(["truncate_thought:cap=3", "snapkv"], keep=0.5)
    assert cap.cap == 3 and cache.keep == 0.5
    with pytest.raises(BudgetError):
        laconic.specs.create_methods(["no_thought"], keep=0.5)


def test_own_work_is_charged(model):
    with laconic.compress(model, Wordless(), tokenizer=TOKENIZER, count_flops=True) as session:
        answered(model, asked(), 6)
    assert session.stats.compress_seconds > 0 and session.stats.method_flops is not None
