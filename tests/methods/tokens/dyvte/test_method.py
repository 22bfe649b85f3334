"""DyVTE with gates that are forced or planted; "line n" is what the card must show. Labels and training: test_fit.py."""

import pytest
import torch
from helpers.vision_exact import embedded, generate, run
from helpers.vision_tools import inputs
from torch import nn

from laconic import VTW, ArtifactError, BudgetError, compress
from laconic import load as load_model
from laconic.artifact import Artifact, numbers
from laconic.methods.tokens.dyvte.method import DyVTE
from laconic.methods.tokens.dyvte.network import Gate, load, question_feature
from laconic.ops.pool import pool_rows
from laconic.stream.assemble import assemble
from laconic.stream.contract import TokenMethod
from laconic.tasks.scenes.questions import EVALUATION_SEED, QUESTIONS, make
from laconic.testbed.evaluate_vlm import ask, correct


def saved(layers, path, shares=(), model=None):
    """Gates as an artifact, for any model if none is given."""
    facts = {"shares": [list(pair) for pair in shares]}
    if model is None:
        Artifact("dyvte", "trained", "random", None, facts, numbers(layers)).save(path)
    else:
        Artifact.of("dyvte", "trained", model, facts, numbers(layers)).save(path)
    return str(path)


def planted(path, fires, channels=(0,) * 7, d=128, width=4):
    """Gates of 8 layers; layer l's fires when channel ``channels[l]`` of the last token times ``fires[l]`` is positive."""
    layers = nn.ModuleList(Gate(d, width) for _ in range(7))
    for gate, sign, channel in zip(layers, fires, channels, strict=True):
        nn.init.zeros_(gate.first.weight)
        nn.init.zeros_(gate.second.weight)
        gate.first.weight.data[0, d + channel] = 1.0
        gate.first.weight.data[1, d + channel] = -1.0
        gate.second.weight.data[1, 0] = sign
        gate.second.weight.data[1, 1] = -sign
    return saved(layers, path)


def leaving(exit_layer):
    """Slow reference: visual tokens are dropped after a layer, positions stay."""

    def change(i, hidden, visual, positions):
        if i != exit_layer + 1:
            return hidden, visual, positions
        return hidden[~visual], visual[~visual], positions[~visual]

    return change


def masked(model, given, exit_layer):
    """The full model, visual columns hidden from every query after a layer; logits [T, V]. The training's branch B."""
    stack = model.model.language_model
    hidden, visual = embedded(model, given)
    n = hidden.shape[1]
    causal = torch.full((n, n), float("-inf")).triu(1)
    blocked = causal.masked_fill(visual[None, :].expand(n, n), float("-inf"))
    blocked[visual] = causal[visual]  # rows that nobody reads must not be empty
    phases = stack.rotary_emb(hidden, torch.arange(n)[None])
    for i, layer in enumerate(stack.layers):
        mask = (causal if i <= exit_layer else blocked)[None, None]
        hidden = layer(hidden, attention_mask=mask, position_embeddings=phases)
    return model.lm_head(stack.norm(hidden))[0], visual


@pytest.mark.parametrize("kind", ["never", "last layer", "threshold", "neutral"])
def test_never_changes_nothing(vlm, tmp_path, kind):
    """line 1"""
    given = inputs([(3, 9), (1, 5)])
    plain = vlm(**given).logits
    artifact = planted(tmp_path / "w.safetensors", [0.0] * 7)  # equal logits: not greater
    methods = {
        "never": DyVTE(artifact=artifact),
        "last layer": DyVTE(exit_layer=7),
        "threshold": DyVTE(artifact=planted(tmp_path / "v.safetensors", [9.0] * 7), tau=1.0),
        "neutral": DyVTE(keep=1.0),
    }
    with compress(vlm, methods[kind]):
        torch.testing.assert_close(vlm(**given).logits, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exit_layer", [0, 3, 6])
def test_a_forced_exit_is_the_model_with_visual_columns_masked(vlm, exit_layer):
    """lines 2 and 6: also the training's second run; lengths of the caches; decoding equals a full recompute"""
    given = inputs([(3, 9)])
    with compress(vlm, DyVTE(exit_layer=exit_layer)) as session:
        got = vlm(**given).logits[0]
    want, visual = masked(vlm, given, exit_layer)
    torch.testing.assert_close(got, want[~visual], rtol=1e-5, atol=1e-4)
    with compress(vlm, DyVTE(exit_layer=exit_layer)) as session:
        tokens = generate(vlm, given)[0]
    again, _, lengths = run(vlm, given, leaving(exit_layer))
    torch.testing.assert_close(tokens, again, rtol=1e-4, atol=1e-4)
    assert lengths == [156 if i <= exit_layer else 12 for i in range(8)]
    assert [layer.stored - 3 for layer in session.cache.compressed()] == lengths


def test_the_gate_reads_the_question_without_its_last_token_and_the_last():
    """line 3"""
    question = torch.randn(5, 6)
    want = [sum(float(question[i, c]) for i in range(4)) / 4 for c in range(6)] + question[4].tolist()
    torch.testing.assert_close(question_feature(question), torch.tensor(want))
    assert question_feature(question[:1]).tolist() == [*question[0].tolist()] * 2
    with pytest.raises(ValueError, match="ends with its image"):
        question_feature(question[:0])
    gate = Gate(6, 7)
    x = torch.randn(3, 12)
    hidden = x @ gate.first.weight.T
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(gate(x), hidden @ gate.second.weight.T)
    assert sum(p.numel() for p in Gate(4096, 2048).parameters()) == 2 * 4096 * 2048 + 2 * 2048


@pytest.mark.parametrize("exit_layer", [1, 5])
def test_counters_follow_the_formula(vlm, exit_layer):
    """line 5"""
    given = inputs([(3, 9)])
    with compress(vlm, DyVTE(exit_layer=exit_layer)) as session:
        vlm(**given)
    stats = session.stats
    assert 1 - stats.achieved == pytest.approx((8 - 1 - exit_layer) / 8)
    assert stats.kv_bytes_full - stats.kv_bytes == 144 * (8 - 1 - exit_layer) * 2 * 2 * 32 * 4


def test_rows_of_a_batch_leave_behind_their_own_layers(vlm, tmp_path):
    """Each row does what it does alone."""
    given = inputs([(3, 9), (8, 2), (5, 5), (2, 7)], seed=3)
    alone = []
    for b in range(4):
        real = given["attention_mask"][b] == 1
        alone.append({"input_ids": given["input_ids"][b : b + 1, real], "pixel_values": given["pixel_values"][b : b + 1]})
    last = torch.stack([torch.stack(vlm(**one, output_hidden_states=True).hidden_states)[1:8, 0, -1] for one in alone])
    leaves = [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    channels = [int((last[:, i] > 0).float().var(0).argmax()) for i in range(7)]  # where rows differ most
    method = DyVTE(artifact=planted(tmp_path / "w.safetensors", leaves, channels))
    with compress(vlm, method) as session:
        together = generate(vlm, given, 3)
        lengths = [[int(n) for n in layer.lengths[:, 0] - 2] for layer in session.cache.compressed()]
    exits = set()
    for b, one in enumerate(alone):
        fires = [sign * float(last[b, i, channels[i]]) > 0 for i, sign in enumerate(leaves)]
        exit_layer = fires.index(True) if True in fires else 7
        exits.add(exit_layer)
        want, _, stored = run(vlm, one, leaving(exit_layer), 3)
        torch.testing.assert_close(together[b], want, rtol=1e-4, atol=1e-4)
        assert [row[b] for row in lengths] == stored
    assert len(exits) > 1


def test_it_is_decided_in_prefill_only(vlm, tmp_path, monkeypatch):
    """One gate per layer and row, until it fires; none while decoding."""
    asked = []
    real = Gate.forward
    monkeypatch.setattr(Gate, "forward", lambda self, x: asked.append(1) or real(self, x))
    artifact = planted(tmp_path / "w.safetensors", [0.0] * 7)
    with compress(vlm, DyVTE(artifact=artifact)):
        generate(vlm, inputs([(3, 9)]), 5)
    assert len(asked) == 7


class Halves(TokenMethod):
    """Means of pairs before layer 1."""

    name = "halves"

    def cuts(self, depth):
        return (1,)

    def cut(self, stream):
        at = [stream.images(b) for b in range(len(stream.hidden))]
        values = [pool_rows(stream.hidden[b, rows], 2) for b, rows in enumerate(at)]
        return assemble(stream, [rows[::2] for rows in at], values)


def test_together_with_a_method_on_single_tokens(vlm):
    given = inputs([(3, 9)])

    def change(i, hidden, visual, positions):
        if i == 1:
            at = visual.nonzero()[:, 0]
            hidden = hidden.clone()
            hidden[at[::2]] = (hidden[at[::2]] + hidden[at[1::2]]) / 2
            stays = torch.ones_like(visual)
            stays[at[1::2]] = False
            return hidden[stays], visual[stays], positions[stays]
        return leaving(4)(i, hidden, visual, positions)

    want, _, lengths = run(vlm, given, change)
    with compress(vlm, Halves(keep=0.5), DyVTE(exit_layer=4)) as session:
        torch.testing.assert_close(generate(vlm, given)[0], want, rtol=1e-4, atol=1e-4)
    assert [layer.stored - 3 for layer in session.cache.compressed()] == lengths


def test_artifacts_and_thresholds(vlm, llama, tmp_path):
    gates, shares = nn.ModuleList(Gate(128, 3) for _ in range(7)), [(0.1, 0.3), (0.2, 0.5), (0.3, 0.5), (0.4, 0.8)]
    path = saved(gates, tmp_path / "w.safetensors", shares)
    for one, two in zip(load(Artifact.load(path)).parameters(), gates.parameters(), strict=True):
        assert torch.equal(one, two)
    method = DyVTE(artifact=path, keep=0.6)
    compress(vlm, method)
    assert method._tau == 0.3
    with pytest.raises(BudgetError, match=r"the least is 0\.3"):
        compress(vlm, DyVTE(artifact=path, keep=0.2))
    with pytest.raises(BudgetError, match="no such budget"):
        DyVTE(tokens=30)
    with pytest.raises(ValueError, match="give one of them"):
        DyVTE(keep=0.5, tau=0.3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        DyVTE(tau=1.5)
    with pytest.raises(ValueError, match=r"layers 0\.\.7"):
        compress(vlm, DyVTE(exit_layer=8))
    with pytest.raises(ArtifactError, match=r"`laconic fit dyvte .*, or give exit_layer="):
        compress(vlm, DyVTE())
    saved(gates, path, shares, llama)
    with pytest.raises(ArtifactError, match="made for other weights"):
        compress(vlm, DyVTE(artifact=path))


@pytest.mark.slow
def test_7_trained_gates_know_which_questions_need_the_image_for_longer():
    """Shipped gates: places later than colours, and on average earlier than one layer for all that is as good."""
    model, processor = load_model("testbed/vlm")

    def right(method, kind):
        samples = [make(kind, EVALUATION_SEED + 700_000 + i) for i in range(40)]
        answers = ask(model, processor, samples, methods=[method])
        return sum(correct(samples, answers)) / 40, answers[0].final.achieved

    trained = {kind: right(DyVTE(), kind) for kind in QUESTIONS}
    fixed = {kind: right(VTW(layer=7), kind) for kind in QUESTIONS}
    assert trained["position"][1] > trained["colour"][1] + 0.15
    accuracy, share = (sum(x[i] for x in trained.values()) / 7 for i in (0, 1))
    assert accuracy >= sum(x[0] for x in fixed.values()) / 7 - 0.01 > 0.9
    assert share < sum(x[1] for x in fixed.values()) / 7 - 0.02
