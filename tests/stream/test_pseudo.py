"""Pseudo tokens run after the prompt and leave no trace."""

from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from helpers.vision_tools import inputs as image_inputs
from helpers.vision_zoo import CASES
from helpers.zoo import prompt as zoo_prompt
from helpers.zoo import scaled

import laconic
from laconic.cache.contract import CacheMethod
from laconic.cache.observe import rotate
from laconic.errors import ConflictError, SessionError
from laconic.measure.cost import Shape
from laconic.step import step_of
from laconic.stream.pseudo import PseudoSeam, extended, trimmed

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


@pytest.mark.parametrize("length", [60, 100])
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_they_are_rotated_by_the_prompts_frequencies(kind, length):
    """By hand, in layer 0: frequencies that a prompt of this length gets, times the positions that follow it."""
    model, plain = scaled(kind), scaled(kind)
    ids = zoo_prompt(1, length)
    method = Probe(keep=0.5)
    with laconic.compress(model, method):
        model(ids)
    plain(ids)
    layer, rotary = plain.model.layers[0], plain.model.rotary_emb
    hidden = layer.input_layernorm(plain.model.embed_tokens(ids[:, :1] + 1)).repeat(1, 3, 1)
    keys = layer.self_attn.k_proj(hidden).view(1, 3, 2, 16).transpose(1, 2)
    angles = torch.arange(length, length + 3)[None, :, None] * rotary.inv_freq
    cos, sin = (torch.cat([x, x], -1) * rotary.attention_scaling for x in (angles.cos(), angles.sin()))
    torch.testing.assert_close(method.seen[0].pseudo[1], rotate(keys, cos, sin), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_tokens_with_several_positions(name):
    """M-RoPE: phases come with an axis more, or sections of channels are picked before; both grow by the pseudo tokens."""
    model = CASES[name].build()
    ids = zoo_prompt(1, 20) % 80 + 2
    want = model(input_ids=ids).logits
    with laconic.compress(model, Probe(tokens=7)):
        torch.testing.assert_close(model(input_ids=ids).logits, want, atol=1e-4, rtol=1e-4)


class PerAxis(torch.nn.Module):
    """Gives phases [3, B, T, 1] as the rotary modules of Qwen2-VL do up to transformers 5.18, or one tensor."""

    def __init__(self, pair):
        super().__init__()
        self.pair, self.calls = pair, []

    def forward(self, x, position_ids, layer_type=None):
        self.calls.append((position_ids.tolist(), layer_type))
        phases = position_ids[..., None].float()
        return (phases, -phases) if self.pair else phases


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("pair", [True, False])
def test_phases_of_any_shape_are_extended(pair, named):
    rotary = PerAxis(pair)
    seam = PseudoSeam(SimpleNamespace(stack=SimpleNamespace(rotary_emb=rotary), methods=(Probe(keep=0.5),)), ())
    positions = torch.arange(6).view(1, 1, 6).repeat(3, 2, 1)
    with ExitStack() as restore:
        seam.install(restore)
        kwargs = {"input_ids": torch.ones(2, 3, dtype=torch.long), "position_ids": positions[..., :3]}
        seam.enter(kwargs, step_of(kwargs, kwargs["input_ids"], 0, [], False), None)
        x = torch.zeros(1)
        out = rotary(x, position_ids=positions, layer_type="a") if named else rotary(x, positions, "a")
        phases = out[0] if pair else out
        assert torch.equal(phases[..., 0], positions.float())
        if pair:
            assert torch.equal(out[1], -phases)
        assert rotary.calls == [(positions[..., :3].tolist(), "a"), (positions[..., 3:].tolist(), "a")]
        seam.leave(SimpleNamespace(last_hidden_state=torch.zeros(2, 6, 1), hidden_states=None), None)
        rotary(x, positions)
        assert rotary.calls[2:] == [(positions.tolist(), None)]
    assert not rotary._forward_hooks and not rotary._forward_pre_hooks


@pytest.mark.parametrize("name", ["divprune", "pyramiddrop"])
def test_beside_a_method_on_visual_tokens(vlm, name):
    """What is cut before layer 0 is gone before pseudo tokens come, and only their rows leave the output."""
    given, pruned = image_inputs([(3, 9), (5, 7)]), laconic.create_method(name, keep=0.5)
    if name == "pyramiddrop":
        with pytest.raises(ConflictError, match=r"probe runs pseudo tokens.*pyramiddrop shortens the stream between"):
            laconic.compress(vlm, pruned, Probe(tokens=7))
        return
    with laconic.compress(vlm, pruned):
        want = vlm(**given).logits
    with laconic.compress(vlm, pruned, Probe(tokens=7)):
        torch.testing.assert_close(vlm(**given).logits, want, atol=1e-4, rtol=1e-4)


def test_a_cache_whose_layers_are_apart_is_refused(vlm):
    with laconic.compress(vlm, laconic.create_method("pyramiddrop", keep=0.5)) as session:
        vlm(**image_inputs([(3, 9)]))
    with (
        laconic.compress(vlm, Probe(tokens=7)),
        pytest.raises(SessionError, match=r"different positions.*pseudo tokens cannot continue"),
    ):
        vlm(input_ids=torch.full((1, 5), 20), past_key_values=session.cache)


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
