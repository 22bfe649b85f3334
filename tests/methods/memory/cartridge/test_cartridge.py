"""Cartridges: the parameters are the cache; trained for one document, asked like any memory."""

import pytest
import torch

import laconic
from laconic.artifact import Artifact, numbers
from laconic.engine.engine import Engine, Request
from laconic.errors import ArtifactError
from laconic.fit import Trainer
from laconic.memory.memory import Memory
from laconic.memory.prefix import read
from laconic.methods.memory.cartridge.fit import CartridgeFit, divergence
from laconic.methods.memory.cartridge.network import TrainedPrefix, from_peft, to_peft
from laconic.methods.memory.cartridge.study import SEEDS, Exchange, Study
from laconic.prompts.text import PromptError, build
from laconic.tasks.task import EVALUATION_SEED
from laconic.tasks.text.slots import FRAME, SLOTS, Slots


@pytest.fixture(scope="module")
def loaded():
    model, tokenizer = laconic.load("testbed/facts")
    return model.float().requires_grad_(False), tokenizer


@pytest.fixture(scope="module")
def sample(loaded):
    return Slots(tokens=64 + FRAME, tokenizer=loaded[1]).sample(EVALUATION_SEED)


def untrained(loaded, text, path, entries=None):
    """The artifact of a cartridge that holds the first entries of a document as the model reads it."""
    model, tokenizer = loaded
    prompt = build(tokenizer, text, "?")
    ids, opening = prompt.context[prompt.opening :], prompt.context[: prompt.opening]
    whole = read(model, torch.tensor([prompt.context[:entries]]))
    facts = {"ids": ids, "opening": opening, "entries": whole.entries, "frozen": 1, "seconds": 7.0, "flops": 1234}
    facts["keeps"] = [whole.entries / len(prompt.context)]
    Artifact.of("cartridge", "trained", model, facts, numbers(TrainedPrefix.of(whole))).save(path)
    return f"cartridge:artifact={path}"


@pytest.mark.parametrize("mode", ["in view", "later"])
def test_1_untrained_and_as_long_as_the_document_it_is_the_document(loaded, sample, tmp_path, mode):
    spec = untrained(loaded, sample.context, tmp_path / "c.safetensors")
    engine, ask = Engine(*loaded), {"context": sample.context, "max_new_tokens": 3, "mode": mode}
    for turn in sample.turns[:3]:
        plain = engine.answer(Request(question=turn.question, **ask))
        got = engine.answer(Request(question=turn.question, methods=[spec], **ask))
        assert got.ids == plain.ids and turn.gold in got.text
    assert got.prompt.tokens_in == plain.prompt.tokens_in and got.prompt.kv_bytes == plain.prompt.kv_bytes
    assert got.prompt.compress_seconds >= 7 and got.first_seconds >= 7  # its training is charged
    assert got.prompt.prefill_flops > 1234


@torch.no_grad()
def test_5_the_question_begins_after_the_last_entry(loaded, sample, tmp_path):
    """The same logits as from a stock cache that was cut to its first entries, positions going on from there."""
    model, tokenizer = loaded
    spec = untrained(loaded, sample.context, tmp_path / "c.safetensors", entries=9)
    memory = Memory.of(model, tokenizer, sample.context, spec)
    prompt = build(tokenizer, sample.context, "a?")
    cut = read(model, torch.tensor([prompt.context[:9]]))
    want = model(torch.tensor([prompt.question]), past_key_values=cut.cache(model.dtype)).logits[0, -1]
    inputs = memory.inputs(model, tokenizer, "a?")
    with laconic.compress(model) as session, session.hold():
        out = model.generate(**inputs, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True)
    torch.testing.assert_close(out.logits[0][0], want, atol=1e-4, rtol=1e-4)


def test_2_gradients_reach_every_layer_and_head_but_the_frozen_entry(loaded, sample):
    model, tokenizer = loaded
    prompt = build(tokenizer, sample.context, "a?")
    trained = TrainedPrefix.of(read(model, torch.tensor([prompt.context[:6]])), frozen=2)
    answer, top = torch.tensor([3, 4]), torch.tensor([[3, 5], [4, 6]])
    divergence(model, trained, [Exchange(torch.tensor(prompt.question), answer, top, torch.full((2, 2), -0.7))]).backward()
    for own in (trained.keys, trained.values):
        assert own.shape[2] == 4 and own.grad.abs().amax((2, 3)).gt(0).all()
    assert not trained.first_keys.requires_grad and all(p.grad is None for p in model.parameters())


@torch.no_grad()
def test_the_loss_is_the_divergence_token_by_token(loaded, sample):
    model, tokenizer = loaded
    prefix = read(model, torch.tensor([build(tokenizer, sample.context, "a?").context[:6]]))
    gen = torch.Generator().manual_seed(0)
    exchanges = []
    for q, a in ((2, 3), (4, 1)):
        question, answer = (torch.randint(5, 150, (n,), generator=gen) for n in (q, a))
        log_p, top = torch.randn(a, 158, generator=gen).log_softmax(-1).topk(4)
        exchanges.append(Exchange(question, answer, top, log_p))
    total, tokens = 0.0, 0
    for one in exchanges:
        for i in range(len(one.answer)):
            ids = torch.cat([one.question, one.answer[:i]])[None]
            log_q = model(ids, past_key_values=prefix.cache(model.dtype)).logits[0, -1].log_softmax(-1)
            total += sum(float(p.exp() * (p - log_q[t])) for p, t in zip(one.log_p[i], one.top[i], strict=True))
            tokens += 1
    got = divergence(model, TrainedPrefix.of(prefix), exchanges)
    assert float(got) == pytest.approx(total / tokens, rel=1e-4)


def right(loaded, sample, *methods):
    """Share of all slots whose value is given rightly."""
    context, stated = laconic.read(*loaded, sample.context, *methods), {x[0]: x[1] for x in sample.context.split()}
    return sum(context.ask(f"{slot}?", max_new_tokens=1).text == value for slot, value in stated.items()) / len(stated)


@pytest.mark.slow
def test_3_trained_it_beats_its_beginning_and_eviction_at_equal_entries(loaded, sample, tmp_path):
    """21 times fewer entries: 3 for 65 tokens, the first one not trained."""
    model, tokenizer = loaded
    document, requests = tmp_path / "facts.txt", tmp_path / "asked.txt"
    document.write_text(sample.context)
    requests.write_text("\n".join(f"{slot}?" for slot in SLOTS))
    fit = CartridgeFit(
        data=str(document), requests=str(requests), keep=0.046, exchanges=16, pieces=(64,), answer_tokens=2, batch_size=16,
        steps=150, lr=2e-2, log_every=25,
    )  # fmt: skip
    lines: list[str] = []
    artifact = Trainer(fit, model, tokenizer, None, lines.append).run()
    artifact.save(tmp_path / "c.safetensors")
    assert artifact.data["entries"] == 3 and artifact.data["flops"] > 0 and artifact.data["seconds"] > 0
    losses = [float(line.split()[3]) for line in lines if line.startswith("step")]
    assert losses[-1] < 0.2 * losses[0]
    trained = right(loaded, sample, f"cartridge:artifact={tmp_path / 'c.safetensors'}")
    begun = right(loaded, sample, untrained(loaded, sample.context, tmp_path / "u.safetensors", entries=3))
    kvzip, snapkv = (right(loaded, sample, f"{name}:tokens=3") for name in ("kvzip", "snapkv"))
    print(trained, begun, kvzip, snapkv, losses)
    assert trained > max(begun, kvzip, snapkv) and trained >= 0.9


def test_4_peft_stores_entries_then_layers_then_key_and_value(loaded):
    prefix = read(loaded[0], torch.arange(5, 12)[None])
    table = to_peft(prefix)
    for entry, layer, kind, head in ((0, 0, 0, 0), (3, 5, 1, 1), (6, 7, 0, 1), (2, 4, 1, 0)):
        at = ((layer * 2 + kind) * 2 + head) * 32
        own = (prefix.keys, prefix.values)[kind][layer][0, head, entry]
        assert torch.equal(table[entry, at : at + 32], own)
    again = from_peft(table, layers=8, heads=2)
    assert again.seen == 7 and all(torch.equal(a, b) for a, b in zip(again.keys, prefix.keys, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again.values, prefix.values, strict=True))
    with pytest.raises(ValueError, match="does not hold 3 layers"):
        from_peft(table, layers=3, heads=2)


def test_6_a_memory_is_saved_and_asked_again_beside_other_methods(loaded, sample, tmp_path):
    model, tokenizer = loaded
    spec = untrained(loaded, sample.context, tmp_path / "c.safetensors", entries=40)
    memory = Memory.of(model, tokenizer, sample.context, spec)
    assert "in 40 entries of every KV head" in str(memory) and memory.entries == 40 and memory.saved_tokens == 25
    memory.save(tmp_path / "m.safetensors")
    again = Memory.load(tmp_path / "m.safetensors", model, tokenizer)
    assert again.opening == memory.opening and again.prefix.seen == 40
    assert all(torch.equal(a, b) for a, b in zip(again.prefix.values, memory.prefix.values, strict=True))
    asked = {"question": "b?", "max_new_tokens": 3}
    want = Engine(model, tokenizer).answer(Request(memory=memory, **asked)).ids
    assert Engine(model, tokenizer).answer(Request(memory=again, **asked)).ids == want
    context = laconic.read(model, tokenizer, memory)
    assert context.ask("b?", max_new_tokens=3).ids == want == context.ask("b?", max_new_tokens=3).ids
    assert context.stats.achieved == pytest.approx(40 / 65) and context.ask("c?", follow_up=True, max_new_tokens=2).ids
    packed = laconic.read(model, tokenizer, memory, laconic.KIVI(bits=4, group=8, residual=8))
    assert packed.stats.kv_bytes < 0.6 * context.stats.kv_bytes and packed.ask("b?", max_new_tokens=2).ids


def test_what_it_was_not_trained_for_is_refused(loaded, sample, tmp_path):
    spec = untrained(loaded, sample.context, tmp_path / "c.safetensors", entries=4)
    with pytest.raises(ArtifactError, match="trained for another document, of 64 tokens"):
        Memory.of(*loaded, "c5 a3", spec)
    memory = Memory.of(*loaded, sample.context, spec)
    with pytest.raises(PromptError, match="opens otherwise"):
        memory.inputs(*loaded, "a?", system="c5")
    with pytest.raises(laconic.BudgetError, match="trained for"):
        Memory.of(*loaded, sample.context, laconic.Cartridge(keep=0.5, artifact=str(tmp_path / "c.safetensors")))


def test_documents_that_cannot_be_studied_are_refused(loaded, tmp_path):
    with pytest.raises(PromptError, match="give one with --data"):
        CartridgeFit().build(*loaded)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(PromptError, match="empty"):
        CartridgeFit(data=str(tmp_path / "empty.txt")).build(*loaded)
    (tmp_path / "two.txt").write_text("c5 a3")
    with pytest.raises(ValueError, match="3 tokens cannot fill 5 entries"):
        CartridgeFit(data=str(tmp_path / "two.txt"), frozen=4).build(*loaded)


def study_of(loaded, ids, requests, folder=None):
    return Study(*loaded, ids, (4, 8), requests, seed=3, folder=folder)


def test_a_study_keeps_the_models_own_answers_and_goes_on_where_it_was(loaded, sample, tmp_path):
    ids = loaded[1].encode(sample.context, add_special_tokens=False)
    whole = study_of(loaded, ids, ["a?", "b?"])
    assert list(whole.run(16, 4, 3, 5)) == list(range(1, 17)) and whole.flops is not None
    begun = study_of(loaded, ids, ["a?", "b?"], tmp_path)
    list(begun.run(8, 4, 3, 5))
    resumed = study_of(loaded, ids, ["a?", "b?"], tmp_path)
    resumed.load()
    assert len(resumed.exchanges) == 8 and resumed.read == begun.read and resumed.seconds == begun.seconds
    list(resumed.run(16, 4, 3, 5))
    for one, two in zip(whole.exchanges, resumed.exchanges, strict=True):
        assert all(torch.equal(getattr(one, x), getattr(two, x)) for x in ("question", "answer", "top"))
        torch.testing.assert_close(one.log_p, two.log_p)
    assert all((one.log_p.exp().sum(-1) <= 1.0001).all() and one.top.shape[1] == 5 for one in whole.exchanges)


def test_a_model_that_says_nothing_is_an_error(loaded, sample, monkeypatch):
    ids = loaded[1].encode(sample.context, add_special_tokens=False)
    study = study_of(loaded, ids, [])
    monkeypatch.setattr(loaded[1], "decode", lambda ids, **how: "" if how else "c5 a3", raising=False)
    with pytest.raises(ArtifactError, match="give it requests=FILE"):
        next(study.run(1, 3, 3, 5))
    assert len(SEEDS) == 5


def test_prefixes_are_not_joined(loaded, sample, tmp_path):
    memory = Memory.of(*loaded, sample.context, untrained(loaded, sample.context, tmp_path / "c.safetensors", entries=4))
    with pytest.raises(laconic.ConflictError, match="positions of their own"):
        Memory.joined([memory, memory])
