"""RazorAttention in sessions: budgets, padding, protection, beams, saving, refusals."""

import pytest
import torch
from helpers.reference import left_padding
from helpers.session_tools import head_entries

import laconic
from laconic import BudgetError
from laconic.cache import saved
from laconic.errors import ArtifactError, ConflictError
from laconic.methods.cache.razorattention.method import RazorAttention

GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
SMALL = {"buffer": 10, "share": 1000.0}  # a buffer of ten, whatever the length


# budgets, padding, protection
def test_budgets_count_all_heads(llama, prompt):
    n = 80
    for keep in (0.6, 0.4, 0.3):
        with laconic.compress(llama, RazorAttention(heads="L0H0+L1H1", keep=keep)) as session:
            llama(prompt(2, n))
        assert session.stats.achieved == pytest.approx(keep, abs=1 / n)
        assert session.kept(0, 0).tolist() == list(range(n))
    with pytest.raises(BudgetError) as caught:
        laconic.compress(llama, RazorAttention(heads="L0H0+L1H1", keep=0.2))
    assert "2 of 8 heads keep all tokens" in str(caught.value) and "possible here is 0.25" in str(caught.value)
    with (
        laconic.compress(llama, RazorAttention(heads="L0H0+L1H1", keep=0.25)),
        pytest.warns(UserWarning, match=r"kept 0\.26"),
    ):
        llama(prompt(1, n))  # a compressed head never has less than its newest token and the compensation token
    with (
        laconic.compress(llama, RazorAttention(heads="L0H0+L1H1", tokens=19)),
        pytest.raises(BudgetError, match=r"is 0\.25"),
    ):
        llama(prompt(1, n))
    with laconic.compress(llama, RazorAttention(heads="L0H0+L1H1", keep=0.3)) as session, pytest.warns(match=r"0\.55"):
        llama(prompt(1, 5))  # a share that fits is no error for a prompt so short that rounding breaks it
    assert session.kept(0, 0).tolist() == [0, 1, 2, 3, 4] and session.kept(0, 1).tolist() == [4]
    with pytest.raises(BudgetError, match="8 of 8 heads"):
        laconic.compress(llama, RazorAttention(heads="all", keep=0.5))


def test_padding_is_neither_kept_nor_averaged(llama, prompt):
    ids, pad = prompt(2, 50), 15
    ids[0, :pad] = 0
    mask = left_padding(50, pad, 0).long()
    with laconic.compress(llama, RazorAttention(heads="L1H1", **SMALL)) as session:
        llama(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
    with laconic.compress(llama, RazorAttention(heads="L1H1", **SMALL)) as alone:
        llama(ids[:1, pad:])
    for both, single in zip(session.cache.compressed(), alone.cache.compressed(), strict=True):
        for head in range(2):
            for a, b in zip(head_entries(both, 0, head), head_entries(single, 0, head), strict=True):
                if a.dtype == torch.int32:
                    a = torch.where(a < 0, a, a - pad)
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_protected_tokens_stay_in_every_head(llama, prompt):
    with laconic.compress(llama, RazorAttention(heads="L1H1", protect=(15, 18), **SMALL)) as session:
        llama(prompt(1, 50))
        llama(prompt(1, 5, seed=2), past_key_values=session.cache)
    assert session.kept(0, 0).tolist() == [0, 1, 2, 3, 15, 16, 17, *range(48, 55)]
    with (
        laconic.compress(llama, RazorAttention(heads="no", protect=(0, 30), **SMALL)),
        pytest.raises(BudgetError, match="30 tokens are protected"),
    ):
        llama(prompt(1, 50))


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_retrieval_heads_and_folding(llama, prompt, beams):
    arguments = {**GREEDY, "num_beams": beams}
    method = RazorAttention(heads="L0H0+L2H1", fold_on_decode=True, fold_every=2, **SMALL)
    with laconic.compress(llama, method) as session:
        together = llama.generate(prompt(2, 40), **arguments)
        again = llama.generate(torch.cat([together, prompt(2, 5, seed=3)], 1), past_key_values=session.cache, **arguments)
    assert session.cache.seen == again.shape[1] - 1
    for row in range(2):
        with laconic.compress(llama, method):
            assert torch.equal(llama.generate(prompt(2, 40)[row : row + 1], **arguments)[0], together[row])


def test_a_saved_cache_goes_on_exactly(llama, prompt, tmp_path):
    """Weights of the compensation token and the count of tokens that wait to be folded are saved, too."""
    steps = prompt(2, 7, seed=1).split(1, 1)
    method = RazorAttention(heads="L0H0+L2H1", fold_on_decode=True, fold_every=3, **SMALL)
    with laconic.compress(llama, method) as session:
        llama(prompt(2, 60))
        llama(steps[0], past_key_values=session.cache)
        session.save_cache(tmp_path / "c.safetensors")
        want = [llama(step, past_key_values=session.cache).logits for step in steps[1:]]
    loaded = saved.load(tmp_path / "c.safetensors", llama)
    cache = loaded.cache()
    with laconic.compress(llama, *loaded.methods):
        got = [llama(step, past_key_values=cache).logits for step in steps[1:]]
    torch.testing.assert_close(torch.cat(got), torch.cat(want), atol=1e-6, rtol=1e-6)


def test_errors(llama):
    both = {"artifact": "x", "heads": "no"}
    for bad in ({"share": 0.5}, {"sinks": -1}, {"buffer": 0}, {"fold_every": 0}, {"induction": 1.5}, both):
        with pytest.raises(ValueError, match="razorattention"):
            RazorAttention(**bad)
    with pytest.raises(ArtifactError, match="laconic fit razorattention"):
        laconic.compress(llama, RazorAttention())
    with pytest.raises(ConflictError):
        laconic.compress(llama, RazorAttention(heads="no"), laconic.SnapKV())
    laconic.compress(llama, RazorAttention(keep=1.0))  # neutral: needs no artifact
