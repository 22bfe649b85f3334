"""Where text goes on after images, with M-RoPE: known to each cache, not to the model, which remembers one prompt."""

import pytest
import torch
from helpers.threads import in_threads, meeting
from helpers.vision_zoo import CASES

import laconic

MROPE = [name for name in CASES if name.startswith("qwen")]
every_class = pytest.mark.parametrize("name", MROPE)
GREEDY = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
ASK = torch.tensor([[7, 8, 9, 10]])


def prompt_of(case, grid, seed=0):
    return case.inputs([[case.image(seed, grid=grid)]])


def with_question(inputs):
    ids = torch.cat([inputs["input_ids"], ASK], 1)
    kinds = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, ASK.shape[1]))
    return inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}


def close(got, want):
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@every_class
def test_contexts_with_different_images_take_turns(name):
    case = CASES[name]
    model = case.build()
    wide, small = prompt_of(case, (4, 24)), prompt_of(case, (4, 4), seed=3)
    want = {id(x): model(**with_question(x)).logits[:, -4:] for x in (wide, small)}
    assert model.base_model.rope_deltas is not None
    with laconic.compress(model) as session:
        caches = []
        for inputs in (wide, small):
            model(**inputs)
            caches.append(session.cache)
        for inputs, cache in zip((wide, small), caches, strict=True):
            close(model(ASK, past_key_values=cache.fork()).logits, want[id(inputs)])
            fork = cache.fork()
            steps = [model(ASK[:, i : i + 1], past_key_values=fork).logits for i in range(4)]
            close(torch.cat(steps, 1), want[id(inputs)])


@every_class
def test_generate_counts_from_the_cache_it_is_given(name):
    case = CASES[name]
    model = case.build()
    wide, small = prompt_of(case, (4, 24)), prompt_of(case, (4, 4), seed=3)
    whole = with_question(wide)
    want = model.generate(**whole, **GREEDY)
    with laconic.compress(model) as session:
        model(**wide)
        cache = session.cache
        model(**small)  # the model now counts from here
        ids = whole["input_ids"]
        got = model.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=cache, **GREEDY)
    assert torch.equal(got.sequences, want.sequences)
    close(torch.stack(got.logits), torch.stack(want.logits))


@every_class
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_a_saved_context_goes_on_in_a_model_that_never_saw_the_image(name, keep, tmp_path):
    case = CASES[name]
    model, fresh = case.build(), case.build()
    inputs = prompt_of(case, (4, 24))
    with laconic.compress(model, laconic.SnapKV(keep=keep, window=4)) as session:
        model(**inputs)
        session.save_cache(tmp_path / "c")
        want = model(ASK, past_key_values=session.cache.fork()).logits
    loaded = laconic.load_cache(tmp_path / "c", fresh)
    with laconic.compress(fresh, *loaded.methods):
        assert torch.equal(fresh(ASK, past_key_values=loaded.cache().fork()).logits, want)


@every_class
def test_offsets_follow_the_rows_of_a_batch(name):
    """Two prompts with different images, the shorter one padded; their order is changed before the question."""
    case = CASES[name]
    model = case.build()
    wide, small = (case.image(seed, grid=grid) for seed, grid in ((0, (4, 24)), (3, (4, 4))))
    both = case.inputs([[wide], [small]])
    alone = [prompt_of(case, (4, 4), seed=3), prompt_of(case, (4, 24))]
    for row, inputs in zip((1, 0), alone, strict=True):  # the words of the batch
        inputs["input_ids"] = both["input_ids"][row][both["attention_mask"][row] == 1][None]
    want = [model(**with_question(x)).logits[:, -4:] for x in alone]
    with laconic.compress(model) as session:
        model(**both)
        session.cache.reorder_cache(torch.tensor([1, 0]))
        mask = torch.nn.functional.pad(both["attention_mask"].flip(0), (0, 4), value=1)
        got = model(ASK.repeat(2, 1), attention_mask=mask, past_key_values=session.cache).logits
    close(got, torch.cat(want))


@every_class
def test_a_text_prompt_after_an_image_counts_its_tokens(name):
    case = CASES[name]
    fresh, model = case.build(), case.build()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    want = fresh(torch.cat([ids, ASK], 1)).logits[:, -4:]
    with laconic.compress(model) as session:
        model(**prompt_of(case, (4, 24)))
        model(ids)
        close(model(ASK, past_key_values=session.cache).logits, want)


@every_class
def test_the_model_gets_back_the_offset_that_it_had(name):
    case = CASES[name]
    model = case.build()
    model(**prompt_of(case, (4, 4)))
    before = model.base_model.rope_deltas
    with laconic.compress(model) as session:
        model(**prompt_of(case, (4, 24)))
        assert not torch.equal(model.base_model.rope_deltas, before)
        model(ASK, past_key_values=session.cache)
    assert model.base_model.rope_deltas is before


def test_other_models_get_no_offset(llama, prompt):
    with laconic.compress(llama) as session:
        llama(prompt(1, 9))
    assert not any(layer.state for layer in session.cache.compressed())


@every_class
def test_threads_with_different_images(name):
    """Both threads wait for each other in every pass, after the model has counted positions and before they are used."""
    case = CASES[name]
    model = case.build()
    given = [prompt_of(case, (4, 24)), prompt_of(case, (4, 4), seed=3)]
    with laconic.compress(model):

        def work(inputs):
            out = model.generate(**inputs, **GREEDY)
            ids = torch.cat([out.sequences, ASK], 1)
            more = model.generate(ids, attention_mask=torch.ones_like(ids), past_key_values=out.past_key_values, **GREEDY)
            return torch.stack(out.logits + more.logits)

        alone = [work(inputs) for inputs in given]
        with meeting(model.model.language_model, passes=8):
            together = in_threads(*[lambda inputs=inputs: work(inputs) for inputs in given])
    for got, want in zip(together, alone, strict=True):
        close(got, want)


@every_class
def test_after_a_video_an_answer_is_decoded_where_generate_decodes_it(name):
    """Also where the last frame's position is far behind that of the text after it; a second turn goes on from there."""
    case = CASES[name]
    model, inputs = case.build(), case.inputs([[case.image(1, video=5)]])
    want = model.generate(**inputs, **GREEDY)
    whole = model(**with_question(inputs)).logits[:, -4:]
    with laconic.compress(model) as session:
        got = model.generate(**inputs, **GREEDY)
        model(**inputs)
        later = model(ASK, past_key_values=session.cache).logits
    close(torch.stack(got.logits), torch.stack(want.logits))
    close(later, whole)
