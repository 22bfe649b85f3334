"""Passages of documents as batches: before their true continuation, or before themselves; the same for a seed."""

import random

import pytest
import torch
from helpers.bench_tools import tiny

import laconic
from laconic.fit import Trainer
from laconic.fit.documents import REPEAT, DocumentReadings
from laconic.fit.find import find_fit
from laconic.fit.settings import defaults, parse
from laconic.prompts.text import PromptError, build
from laconic.tasks.text import corpus


@pytest.fixture(scope="module")
def lm():
    return tiny()


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(" ".join(f"The code for bird{i} is {i}." for i in range(300)), encoding="utf-8")
    return path


def test_a_passage_and_its_true_continuation(lm, book):
    _, tokenizer = lm
    readings = DocumentReadings(tokenizer, [str(book)], following=7)
    whole = tokenizer(book.read_text(), add_special_tokens=False)["input_ids"]
    drawn = readings.draw(random.Random(1), 4, 20)
    assert drawn.context.shape == (4, 20) and drawn.rest.shape == (4, 7) and drawn.learned.all()
    for row in torch.cat([drawn.context, drawn.rest], 1).tolist():
        assert any(whole[i : i + 27] == row for i in range(len(whole)))
    again = readings.draw(random.Random(1), 4, 20)
    assert torch.equal(again.context, drawn.context) and not torch.equal(
        readings.draw(random.Random(2), 4, 20).context, drawn.context
    )


def test_a_request_to_repeat_ends_as_a_question_about_a_text_does(lm, book):
    _, tokenizer = lm
    drawn = DocumentReadings(tokenizer, [str(book)]).draw(random.Random(0), 2, 9, copying=True)
    prompt = build(tokenizer, "Some text.", REPEAT)
    assert drawn.opening.tolist() == prompt.context[: prompt.opening]
    request = len(prompt.question)
    assert drawn.rest[0, :request].tolist() == prompt.question
    assert torch.equal(drawn.rest[:, request:], drawn.context)
    assert torch.equal(drawn.learned, torch.arange(request + 9).expand(2, -1) >= request)


def test_the_last_tokens_of_a_document_are_drawn_too(lm, tmp_path):
    _, tokenizer = lm
    path = tmp_path / "short.txt"
    path.write_text("The code for falcon is 4815263.", encoding="utf-8")
    ids = tokenizer(path.read_text(), add_special_tokens=False)["input_ids"]
    readings = DocumentReadings(tokenizer, [str(path)], following=1)
    rows = readings.draw(random.Random(0), 64, len(ids) - 2)
    assert {row[0] for row in rows.context.tolist()} == {ids[0], ids[1]}
    assert {row[0] for row in rows.rest.tolist()} == {ids[-2], ids[-1]}
    readings.check(len(ids))
    with pytest.raises(PromptError, match=rf"short\.txt has {len(ids)} tokens, and a passage with what follows it"):
        readings.check(len(ids) + 1)


def test_longer_documents_are_drawn_from_more_often(lm, tmp_path):
    _, tokenizer = lm
    long, short = tmp_path / "long.txt", tmp_path / "short.txt"
    long.write_text("The code for falcon is 4815263. " * 60, encoding="utf-8")
    short.write_text("Which birds are there? " * 6, encoding="utf-8")
    readings = DocumentReadings(tokenizer, [str(long), str(short)], following=1)
    sizes = [len(ids) - 9 for ids in readings.documents]
    drawn = readings.draw(random.Random(0), 400, 9).context
    first = {tuple(readings.documents[0][i : i + 9]) for i in range(sizes[0])}
    share = sum(tuple(row) in first for row in drawn.tolist()) / 400
    assert abs(share - sizes[0] / sum(sizes)) < 0.05


def test_a_passage_that_is_repeated_needs_nothing_after_it(lm, tmp_path):
    _, tokenizer = lm
    path = tmp_path / "short.txt"
    path.write_text("The code for falcon is 4815263.", encoding="utf-8")
    ids = tokenizer(path.read_text(), add_special_tokens=False)["input_ids"]
    drawn = DocumentReadings(tokenizer, [str(path)]).draw(random.Random(0), 2, len(ids), copying=True)
    assert drawn.context.tolist() == [ids, ids]


def test_documents_are_refused_before_the_first_step(lm, book):
    fit = parse(find_fit("icae"), {"data": str(book), "lengths": "16,90000", "steps": "1"})
    with pytest.raises(PromptError, match=r"book\.txt has .* tokens"):
        fit.build(*lm)
    with pytest.raises(ValueError, match="following=1: the first token after a prefix is not learned"):
        parse(find_fit("gist"), {"data": str(book), "following": "1"})


def test_a_users_documents_come_before_the_facts_of_the_testbed(book):
    model, tokenizer = laconic.load("testbed/facts")
    fit = parse(find_fit("icae"), {"data": str(book), "lengths": "16"})
    fit.build(model, tokenizer)
    assert isinstance(fit.readings, DocumentReadings) and fit.end == -1


def test_models_that_see_are_refused():
    with pytest.raises(ValueError, match="compllm is trained beside models that read text alone"):
        parse(find_fit("compllm"), {}).build(*laconic.load("testbed/vlm"))


def test_without_files_nothing_that_evaluation_reads_is_drawn(lm):
    _, tokenizer = lm
    readings = DocumentReadings(tokenizer)
    held_out = "\n".join(corpus.documents(held_out=True)[0])
    texts = {tokenizer.decode(ids[:40]) for ids in readings.documents}
    assert len(texts) > 100 and tokenizer.decode(tokenizer(held_out)["input_ids"][:40]) not in texts


def test_what_is_no_text_is_named(lm, tmp_path):
    with pytest.raises(PromptError, match=r"cannot read .*none\.txt"):
        DocumentReadings(lm[1], [str(tmp_path / "none.txt")])


@pytest.mark.parametrize("name", ["icae", "compllm", "mean_pool", "x500", "ccf", "gist", "xrag"])
def test_memories_are_trained_with_a_users_own_documents(lm, book, name, tmp_path):
    """Any model, any text: the loss of a passage's continuation falls, and the artifact makes memories."""
    model, tokenizer = lm
    lines: list[str] = []
    keep = "0.25" if name == "xrag" else "0.5"
    given = {
        "steps": "8",
        "batch_size": "4",
        "lengths": "32",
        "following": "16",
        "keeps": keep,
        "log_every": "4",
        "lr": "0.003",
    }
    cls = find_fit(name)
    if "restoring" in cls().settings():
        given["restoring"] = "0.5"
    fit = parse(cls, {**given, "data": str(book)})
    artifact = Trainer(fit, model, tokenizer, None, lines.append).run()
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < losses[0]
    artifact.save(tmp_path / "a.safetensors")
    memory = laconic.Memory.of(
        model, tokenizer, "The code for bird1 is 1.", f"{name}:keep={keep},artifact={tmp_path}/a.safetensors"
    )
    assert memory.entries >= 1


@pytest.mark.parametrize("name", ["uniicl", "voco_llama", "crem"])
def test_trainings_that_draw_their_own_contexts_take_no_documents(name):
    with pytest.raises(ValueError, match=f"{name} has no setting 'data'"):
        parse(find_fit(name), {"data": "book.txt"})
    with pytest.raises(ValueError, match=f"{name}: data has no part in this training; leave it out"):
        find_fit(name)(data=("book.txt",))


def test_what_has_no_part_in_a_training_about_images_is_refused():
    fit = find_fit("crem")
    assert not {"lengths", "segment", "data", "following", "ends"} & set(defaults(fit))
    for given in ({"ends": True}, {"segment": 8}, {"lengths": (8,)}, {"following": 2}):
        with pytest.raises(ValueError, match=f"crem: {next(iter(given))} has no part in this training"):
            fit(**given)
