"""EAS in a session: prompts, folding, turns, batches, caches, budgets, artifacts."""

import warnings

import pytest
import torch
from helpers.eas_tools import LIKE, SKIP, adapters, artifact, generated, of_prompt
from helpers.flops import counted
from helpers.session_tools import GREEDY, LOGITS, assert_same_state, state
from helpers.vision_tools import inputs, random_vlm

import laconic
from laconic import EAS, ArtifactError, BudgetError, SessionError, SnapKV
from laconic.artifact import Artifact, numbers
from laconic.methods.weights.eas.applied import applied
from laconic.methods.weights.eas.method import prompt_rows
from laconic.methods.weights.eas.network import Adapter
from laconic.step import Step


@pytest.fixture(scope="module")
def fitted(llama, tmp_path_factory):
    """The method with random adapters; and the adapters, for the equations."""
    path, made = artifact(llama, tmp_path_factory.mktemp("eas") / "eas.safetensors")
    return EAS(artifact=path), made


def answers(model, ids, method, new=5, **more):
    """Tokens and logits [B, new, V] of a session with `method` and others."""
    methods = method if isinstance(method, tuple) else (method,)
    with laconic.compress(model, *methods) as session:
        logits, _ = generated(model, ids, new, **more)
    return logits, session


def running(model):
    """Adapters that are in the model now."""
    return sum(isinstance(module, Adapter) for module in model.modules())


def test_neutral_setting_is_the_model_and_needs_no_artifact(llama, prompt):
    ids = prompt(2, 40)
    want, _ = generated(llama, ids)
    got, session = answers(llama, ids, EAS(keep=1.0))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    assert session.stats.asked == session.stats.achieved == 1.0


def test_fresh_adapters_that_skip_nothing_are_the_model(llama, prompt, tmp_path):
    path, _ = artifact(llama, tmp_path / "none.safetensors", (), random=False)
    ids = prompt(1, 40)
    want, _ = generated(llama, ids)
    got, _ = answers(llama, ids, EAS(artifact=path))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_generate_follows_the_equations_and_folds(llama, prompt, fitted):
    """Every answer token by the equations, with the prompt's means; the model is what it was."""
    method, made = fitted
    ids, before = prompt(1, 20), state(llama)
    with laconic.compress(llama, method) as session:
        logits, _ = generated(llama, ids, 4)
        assert running(llama) == 0  # folded
        llama(ids)
        assert running(llama) == 4  # another prompt
    assert_same_state(llama, before)
    whole = torch.cat([ids, logits[0].argmax(-1)[None, :3]], 1)
    torch.testing.assert_close(logits[0], of_prompt(llama, made, whole, 20)[0, 19:], rtol=1e-4, atol=1e-4)
    assert [layer.stored for layer in session.cache.compressed()] == [20, 0, 20, 0]


def test_reported_flops_are_all_that_ran(llama, prompt, fitted):
    """Adapters in kept and in skipped layers while the prompt runs, and folding them before the first decoded token; what an
    adapter does once per prompt is counted as if it were done for every token, which is little."""
    ids = prompt(1, 40)
    with torch.inference_mode(), laconic.compress(llama, fitted[0], count_flops=True) as session:
        with counted() as ran:
            llama(ids)
        assert session.stats.prompt_flops == pytest.approx(ran.total(), rel=0.03)
        with counted() as ran:
            for token in prompt(1, 3, seed=1).split(1, 1):
                llama(token, past_key_values=session.cache)
        assert session.stats.answer_flops == pytest.approx(ran.total(), rel=0.03)
        assert session.stats.method_decode_flops > session.stats.decode_flops  # weights are multiplied, once


def test_one_prompt_after_another_is_each_alone(llama, prompt, fitted):
    first, second = prompt(1, 20), prompt(1, 13, seed=1)
    alone = [answers(llama, ids, fitted[0])[0] for ids in (first, second)]
    with laconic.compress(llama, fitted[0]):
        both = [generated(llama, ids)[0] for ids in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(alone, both, strict=True))


def test_a_padded_batch_equals_single_runs(llama, prompt, fitted):
    ids = prompt(2, 20)
    ids[1, :7] = 0
    with laconic.compress(llama, fitted[0]) as session:
        both, _ = generated(llama, ids, attention_mask=(ids != 0).long())
        assert running(llama) == 4  # several prompts: not folded
    for row, own in enumerate((ids[:1], ids[1:, 7:])):
        torch.testing.assert_close(both[row : row + 1], answers(llama, own, fitted[0])[0], rtol=1e-4, atol=1e-4)
    assert session.stats.achieved == 0.5


def test_beams(llama, prompt, fitted):
    """Beams of one prompt share its means."""
    ids = prompt(1, 20)
    with applied(llama, fitted[1]):
        want = llama.generate(ids, num_beams=3, **GREEDY)
    with laconic.compress(llama, fitted[0]):
        assert torch.equal(llama.generate(ids, num_beams=3, **GREEDY), want)


def test_a_second_turn_runs_with_the_weights_of_the_prompt(llama, prompt, fitted):
    ids, turn = prompt(1, 20), prompt(1, 6, seed=3)
    with laconic.compress(llama, fitted[0]) as session:
        first, _ = generated(llama, ids, 3)
        so_far = torch.cat([ids, first[0].argmax(-1)[None], turn], 1)
        second, _ = generated(llama, so_far, 3, past_key_values=session.cache)
        assert running(llama) == 0
    whole = torch.cat([so_far, second[0].argmax(-1)[None, :2]], 1)
    expected = of_prompt(llama, fitted[1], whole, 20)[0, so_far.shape[1] - 1 :]
    torch.testing.assert_close(second[0], expected, rtol=1e-4, atol=1e-4)


def test_a_prompt_in_chunks_has_the_means_of_the_first(llama, prompt, fitted):
    ids = prompt(1, 20)
    logits, _ = answers(llama, ids, fitted[0], 1, prefill_chunk_size=8)
    torch.testing.assert_close(logits[0], of_prompt(llama, fitted[1], ids, 8)[0, 19:], rtol=1e-4, atol=1e-4)


def test_a_cache_of_another_prompt_is_refused(llama, prompt, fitted):
    with laconic.compress(llama, fitted[0]) as session:
        llama(prompt(1, 9))
        first = session.cache
        llama(prompt(1, 9, seed=1))
        with pytest.raises(SessionError, match=r"the weights of eas depend on the prompt"):
            llama(prompt(1, 1), past_key_values=first)


@pytest.mark.parametrize("other", ["snapkv:keep=0.5,window=8", "streaming_llm:keep=0.5", "minicache:keep=0.8"])
def test_composes_with_methods_for_the_cache(llama, prompt, fitted, other):
    """What they keep is what they keep of the model with adapters in it."""
    ids, before = prompt(1, 40), state(llama)
    cache = laconic.create_method(other)
    with warnings.catch_warnings(), applied(llama, fitted[1]), laconic.compress(llama, cache) as outside:
        warnings.simplefilter("ignore")  # outside, nobody knows of layers without attention
        want, _ = generated(llama, ids, 5)
        kept = [outside.kept(layer).tolist() for layer in range(4)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got, session = answers(llama, ids, (fitted[0], laconic.create_method(other)))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert [session.kept(layer).tolist() for layer in range(4)] == kept and kept[1] == kept[3] == []
    assert_same_state(llama, before)


def test_the_budget_is_that_of_the_layers_with_attention(llama, prompt, fitted):
    _, session = answers(llama, prompt(1, 40), fitted[0], 1)
    assert session.stats.asked == session.stats.achieved == 0.5
    _, session = answers(llama, prompt(1, 40), (fitted[0], SnapKV(keep=0.5, window=8)), 1)
    assert session.stats.asked == session.stats.achieved == 0.25


def test_rows_of_the_prompt_are_the_real_ones_that_are_left():
    x = torch.zeros(2, 5, 3)
    step = Step(0, 5, torch.arange(5)[None], [5, 5])
    assert prompt_rows(step, x) is None
    step.pseudo = 2
    assert prompt_rows(step, x).tolist() == [[True, True, True, False, False]] * 2
    step.valid = torch.tensor([[True, True, True], [False, False, True]])
    assert prompt_rows(step, x).tolist() == [[True, True, True, False, False], [False, False, True, False, False]]


def test_means_leave_out_pseudo_tokens(llama, prompt, fitted):
    """They run after the prompt, and the means are those without them."""
    ids, seen = prompt(1, 20), []
    for methods in ((), (laconic.create_method("dapq:keep=0.5,n_pseudo=4"),)):
        with laconic.compress(llama, fitted[0], *methods):
            llama(ids)
            seen.append(fitted[0]._adapters.kept["0"].mix)
    torch.testing.assert_close(*seen)


def test_everything_is_restored_after_an_error(llama, prompt, fitted):
    before, ids = state(llama), prompt(1, 12)
    for new in (1, 3):
        with pytest.raises(ZeroDivisionError), laconic.compress(llama, fitted[0]):
            llama.generate(ids, max_new_tokens=new)
            raise ZeroDivisionError
        assert_same_state(llama, before)


def test_budgets_are_the_artifacts(llama, fitted):
    laconic.compress(llama, EAS(keep=0.5, artifact=fitted[0].artifact))
    with pytest.raises(BudgetError, match=r"keep=0\.8, but the artifact skips 2 of 4 attentions: .* give keep=0\.5"):
        laconic.compress(llama, EAS(keep=0.8, artifact=fitted[0].artifact))
    for budget in ({"tokens": 8}, {"bytes": 4096}):
        with pytest.raises(BudgetError, match="keep= is the share of the layers that keep their attention"):
            EAS(**budget)


def test_without_an_artifact_for_the_model(llama, make_llama, fitted, tmp_path):
    with pytest.raises(ArtifactError, match=r"eas needs an artifact for this model.*`laconic fit eas"):
        laconic.compress(llama, EAS())
    with pytest.raises(ArtifactError, match="made for other weights"):
        laconic.compress(make_llama(seed=5), fitted[0])
    data = {"skip": [1], "adapters": LIKE}
    Artifact.of("eas", "trained", llama, data, numbers(adapters(llama, SKIP))).save(tmp_path / "wrong.safetensors")
    with pytest.raises(ArtifactError, match="the tensors of this artifact do not fit eas"):
        laconic.compress(llama, EAS(artifact=str(tmp_path / "wrong.safetensors")))


def test_bf16(make_llama, prompt, tmp_path):
    """Folding is exact up to the type's rounding."""
    model = make_llama(layers=3).to(torch.bfloat16)
    path, made = artifact(model, tmp_path / "a.safetensors", (2,))
    ids = prompt(1, 20)
    with applied(model, made):
        want, _ = generated(model, ids, 1)
    with laconic.compress(model, EAS(artifact=path)):
        out = model(ids)
        assert (out.logits[:, -1:].float() - want.float()).norm() < 0.03 * want.float().norm()
        model(ids[:, -1:], past_key_values=out.past_key_values)
        assert running(model) == 0 and model.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16


def test_a_model_that_sees(tmp_path):
    """Adapters act in the text decoder; visual tokens may be shortened beside them."""
    model = random_vlm()
    given = inputs([(4, 9)])
    with laconic.compress(model):
        model.generate(**given, **LOGITS)  # transformers leaves hooks of its own
    before = state(model)
    path, _ = artifact(model, tmp_path / "a.safetensors", (1,))
    for methods in ((), (laconic.create_method("random_visual:keep=0.5"),)):
        with laconic.compress(model, EAS(artifact=path), *methods) as session:
            out = model.generate(**given, **LOGITS)
        assert all(bool(x.isfinite().all()) for x in out.logits)
        assert session.stats.entries[1] == 0 and session.stats.entries[0] > 0
        assert_same_state(model, before)
