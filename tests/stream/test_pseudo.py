"""Pseudo tokens run after the prompt and leave no trace."""

from dataclasses import dataclass

import pytest
import torch

import laconic
from laconic.cache.contract import CacheMethod
from laconic.measure.cost import Shape
from laconic.step import step_of
from laconic.stream.pseudo import extended, trimmed

GREEDY = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}


@dataclass(kw_only=True)
class Probe(CacheMethod):
    """Keeps the newest entries and writes down what it is shown."""

    number: int = 3
    offset: int = 0
    name = "probe"

    def __post_init__(self):
        super().__post_init__()
        self.prompts, self.seen = [], []

    def pseudo_offset(self):
        return self.offset

    def pseudo(self, prompt, valid):
        self.prompts.append((prompt, valid))
        return prompt[:, :1].repeat(1, self.number, *[1] * (prompt.ndim - 2)) + (1 if prompt.ndim == 2 else 0)

    def score(self, obs):
        self.seen.append(obs)
        return obs.index.float()


def arguments(ids, mask=None, positions=None, start=0, before=()):
    kwargs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "cache_position": torch.arange(3)}
    step = step_of(kwargs, ids, start, list(before), False)
    return kwargs, step


def test_arguments_are_extended_after_each_rows_own_end():
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    positions = torch.tensor([[1, 1, 0, 1], [0, 1, 2, 3]])
    kwargs, step = arguments(ids, mask, positions)
    method = Probe(keep=0.5)
    new = extended(kwargs, method, step)
    assert new["input_ids"].tolist() == [[0, 0, 5, 6, 1, 1, 1], [7, 8, 9, 10, 8, 8, 8]]
    assert new["position_ids"].tolist() == [[1, 1, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]]
    assert new["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [1] * 7]
    assert "cache_position" not in new
    assert (step.pseudo, step.length, step.real) == (3, 4, [2, 4])
    assert kwargs["input_ids"] is ids and kwargs["position_ids"] is positions  # the caller's own are left alone
    assert torch.equal(method.prompts[0][1], mask.bool())


@pytest.mark.parametrize(("offset", "want"), [(2, [12, 13, 14]), (-5, [5, 6, 7]), (-12, [0, 0, 0])])
def test_positions_follow_what_was_seen_and_move_by_the_offset(offset, want):
    kwargs, step = arguments(torch.tensor([[3, 4]]), start=8, before=[8])
    new = extended(kwargs, Probe(keep=0.5, offset=offset), step)
    assert new["position_ids"].tolist() == [[8, 9, *want]] and new["attention_mask"] is None


def test_embeddings_are_extended_in_their_own_type():
    x = torch.randn(2, 5, 8, dtype=torch.bfloat16)
    kwargs = {"input_ids": None, "inputs_embeds": x, "attention_mask": None}
    step = step_of(kwargs, x, 0, [], False)
    new = extended(kwargs, Probe(keep=0.5), step)
    assert new["inputs_embeds"].shape == (2, 8, 8) and new["inputs_embeds"].dtype == torch.bfloat16
    assert torch.equal(new["inputs_embeds"][:, :5], x) and torch.equal(new["inputs_embeds"][:, 5], x[:, 0])


def test_a_misshapen_answer_is_refused():
    class Wrong(Probe):
        def pseudo(self, prompt, valid):
            return torch.ones(3)

    kwargs, step = arguments(torch.tensor([[3, 4]]))
    with pytest.raises(ValueError, match=r"pseudo\(\) returned \(3,\).*must be \(1, 'P'\)"):
        extended(kwargs, Wrong(keep=0.5), step)


def test_outputs_are_trimmed():
    class Output:
        last_hidden_state = torch.arange(12.0).view(1, 6, 2)
        hidden_states = (torch.ones(1, 6, 2), torch.zeros(1, 6, 2))

    out = trimmed(Output(), 4)
    assert torch.equal(out.last_hidden_state, torch.arange(8.0).view(1, 4, 2))
    assert [x.shape[1] for x in out.hidden_states] == [4, 4]


@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_the_prompts_own_rows_do_not_notice(llama, prompt, tokens):
    ids = prompt(2, 30)
    want = llama(ids, output_hidden_states=True)
    with laconic.compress(llama, Probe(tokens=tokens)) as session:
        got = llama(ids, output_hidden_states=True)
    torch.testing.assert_close(got.logits, want.logits, atol=1e-5, rtol=1e-5)
    assert len(got.hidden_states) == len(want.hidden_states)
    for a, b in zip(got.hidden_states, want.hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert session.stats.entries == [min(tokens, 30)] * 4 and session.cache.seen == 30


def test_the_method_sees_their_queries_and_keys(llama, prompt, passes):
    method = Probe(tokens=5)
    with laconic.compress(llama, method):
        llama(prompt(2, 20))
    for number, obs in enumerate(method.seen):
        queries, keys = passes[number][0]
        assert queries.shape[2] == 23 and obs.keys.shape[2] == obs.queries.shape[2] == 20
        assert torch.equal(obs.pseudo[0], queries[:, :, 20:]) and torch.equal(obs.pseudo[1], keys[:, :, 20:])
        assert obs.index.shape[2] == 20


def test_prefill_costs_exactly_the_pseudo_tokens(llama, prompt):
    with laconic.compress(llama, Probe(tokens=5, number=6)) as session:
        llama(prompt(1, 20))
    want = Shape.of(llama, llama.model).prefill_flops([26] * 4, logits=20)
    assert session.stats.prefill_flops == want and session.stats.stream == dict.fromkeys(range(4), 26)


def test_only_prefill_passes_that_compress_run_them(llama, prompt):
    method = Probe(keep=0.5)
    ids = prompt(1, 20)
    with laconic.compress(llama, method) as session:
        llama(ids)
        llama(prompt(1, 1, seed=1), past_key_values=session.cache)
        with session.hold():
            llama(prompt(1, 6, seed=2), past_key_values=session.cache)
        assert len(method.prompts) == 1
        llama(prompt(1, 6, seed=3), past_key_values=session.cache)
        assert len(method.prompts) == 2 and method.seen[-1].pseudo is not None
    neutral = Probe(keep=1.0)
    with laconic.compress(llama, neutral):
        llama(ids)
    assert not neutral.prompts


def test_embeddings_give_what_their_ids_give(llama, prompt):
    class Repeat(Probe):
        def pseudo(self, prompt, valid):
            return prompt[:, : self.number]

    ids = prompt(2, 24)
    outs = []
    for given in ({"input_ids": ids}, {"inputs_embeds": llama.get_input_embeddings()(ids)}):
        with laconic.compress(llama, Repeat(tokens=9)):
            outs.append(llama.generate(**given, **GREEDY)[:, -4:])
    assert torch.equal(*outs)
