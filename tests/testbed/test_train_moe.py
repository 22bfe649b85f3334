"""Training of the mixture: rows and what is learned of them, resuming, and a table that counts what generation answers."""

import random

import pytest
import torch
from torch.nn.functional import cross_entropy

from laconic.tasks.text.languages import ENTROPY, SYMBOLS, TAGS, surprise
from laconic.testbed import train_moe
from laconic.testbed.export import export
from laconic.testbed.moe_model import build_model, build_tokenizer
from laconic.testbed.train_moe import ANSWER, LENGTHS, TEXT, Batches, Trainer, evaluate, parser, read
from laconic.weights.experts import mixtures

TOKENIZER = build_tokenizer()
SMALL = ("--width", "64", "--neurons", "16", "--rows", "256")


def settings(folder, *more):
    return parser().parse_args(["--out", str(folder), *SMALL, *more])


def test_the_model_is_a_mixture_of_four_to_eight_million_parameters():
    model = build_model(TOKENIZER)
    blocks = mixtures(model, "x")
    assert 4e6 < sum(p.numel() for p in model.parameters()) < 8e6
    assert [(block.count, block.neurons) for block in blocks] == [(8, 384)] * 4


@pytest.mark.parametrize("length", range(len(LENGTHS)))
def test_rows_have_one_length_and_are_learned_where_something_decides(length):
    batch = Batches(TOKENIZER).draw(random.Random(1), 3, length)
    assert batch.ids.shape == batch.kinds.shape == batch.asked.shape == (3, LENGTHS[length])
    asked = 0
    for ids, kinds, owner in zip(batch.ids, batch.kinds, batch.asked, strict=True):
        words = TOKENIZER.convert_ids_to_tokens(ids.tolist())
        symbols = [word for word in words if word in SYMBOLS]
        learned = [word for word, kind in zip(words, kinds, strict=True) if kind == TEXT]
        assert learned == symbols[2:] and surprise(symbols, TAGS.index(words[1])) > 0
        for number in owner[owner >= 0].unique().tolist():
            at = (owner == number).nonzero()[:, 0].tolist()
            key = words[at[0] - 1].removesuffix("?")
            place = words.index(key)
            assert [words[i] for i in at] == [*words[place + 1 : place + 3], "</s>"] and number == asked
            assert (kinds[at] == ANSWER).all()
            asked += 1
    assert asked == batch.questions and int((batch.kinds == ANSWER).sum()) == 3 * asked


def test_the_losses_are_means_over_symbols_and_answers(tmp_path):
    trainer = Trainer(settings(tmp_path))
    batch = trainer.batches.draw(random.Random(2), 2, 0)
    with torch.no_grad():
        loss, right, kinds, text = trainer.losses(batch)
        logits = trainer.model(input_ids=batch.ids).logits[:, :-1]
        aux = trainer.model(input_ids=batch.ids[:, :-1], output_router_logits=True).aux_loss
    found = {kind: [] for kind in (TEXT, ANSWER)}
    wrong = set()
    for row in range(2):
        for at in range(LENGTHS[0] - 1):
            kind = int(batch.kinds[row, at + 1])
            if kind:
                found[kind].append(cross_entropy(logits[row, at], batch.ids[row, at + 1]))
                if kind == ANSWER and logits[row, at].argmax() != batch.ids[row, at + 1]:
                    wrong.add(int(batch.asked[row, at + 1]))
    read_, said = (torch.stack(x).mean() for x in found.values())
    torch.testing.assert_close(loss, read_ + said + 0.01 * aux)
    assert text == pytest.approx(float(read_) / ENTROPY, rel=1e-4)
    assert {i for i, ok in enumerate(right.tolist()) if not ok} == wrong and kinds.tolist() == [0] * batch.questions


def test_longer_rows_come_stage_by_stage_with_as_many_tokens(tmp_path):
    trainer = Trainer(settings(tmp_path, "--rows", "512"))
    for stage in range(3):
        trainer.state["stage"] = stage
        shapes = {tuple(trainer.drawn(random.Random(i)).ids.shape) for i in range(40)}
        assert shapes == {(512 // n, n) for n in LENGTHS[: stage + 1]}


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    unbroken, broken = Trainer(settings(tmp_path / "a")), Trainer(settings(tmp_path / "b"))
    for trainer in (unbroken, broken):
        trainer.step()
    broken.save()
    resumed = Trainer(settings(tmp_path / "b", "--resume"))
    resumed.load()
    for trainer in (unbroken, resumed):
        trainer.step()
    assert unbroken.state == resumed.state
    for a, b in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_text_is_read_after_its_first_two_symbols():
    """A model that finds all words equally likely, beside the table's own surprise."""
    model = build_model(TOKENIZER, 64, 8)
    torch.nn.init.zeros_(model.lm_head.weight)
    found, known = read(model, TOKENIZER, 2, 2)
    symbols = 2 * (LENGTHS[-1] - 4)
    assert found == pytest.approx(symbols * float(torch.log(torch.tensor(float(len(TOKENIZER))))), rel=1e-4)
    assert known == pytest.approx(symbols * ENTROPY, rel=0.1)


def test_the_table_and_its_gates(tmp_path, monkeypatch, capsys):
    trainer = Trainer(settings(tmp_path / "run"))
    trainer.save()
    export(tmp_path / "run", tmp_path / "shipped")
    monkeypatch.setattr(train_moe, "read", lambda model, tokenizer, language, samples: (1.01, 1.0))
    golds = lambda model, tokenizer, drawn, turn, prefix: [sample.turns[turn].gold for sample in drawn]  # noqa: E731
    monkeypatch.setattr(train_moe, "ask", golds)
    assert evaluate(tmp_path / "shipped", 2)
    monkeypatch.setattr(train_moe, "ask", lambda model, tokenizer, drawn, turn, prefix: ["1 2"] * len(drawn))
    assert not evaluate(tmp_path / "shipped", 2)
    told = capsys.readouterr().out
    assert "all languages: 1.010 of the entropy" in told and "256 tokens: 100.0% of 8 needles found" in told
    assert told.endswith("gates NOT passed\n")
