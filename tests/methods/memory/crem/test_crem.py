"""CREM: the mask of its compressed answers, the embedding at the chorus, and the contrastive loss."""

import math

import pytest
import torch
from helpers.memory_tools import artifact_of

import laconic
from laconic.errors import MediaError
from laconic.fit import Trainer
from laconic.fit.find import find_fit
from laconic.fit.settings import parse
from laconic.memory.compressor import embedded
from laconic.methods.memory.crem.method import CREM
from laconic.methods.memory.crem.network import Chorus, info_nce
from laconic.prompts.text import PromptError
from laconic.tasks.scenes.captions import caption, caption_of
from laconic.tasks.scenes.questions import drawn, pose


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    return Chorus(llama, 4)


@torch.no_grad()
def test_1_3_answers_from_the_chorus_equal_the_masked_pass(llama, prompt, network):
    """Text, chorus, question: the question sees the opening, the chorus and itself, at its own position."""
    opening, ids, question = prompt(1, 2, seed=3)[0], prompt(1, 12), prompt(1, 5, seed=2)
    made = network(llama, opening, ids, 4 / 12)
    assert (made.entries, made.seen) == (2 + 4, 2 + 12 + 4)
    got = llama(question, past_key_values=made.cache(llama.dtype), position_ids=made.after(5)).logits
    parts = [embedded(llama, opening[None]), embedded(llama, ids), network.tokens[None], embedded(llama, question)]
    mixed = torch.cat(parts, 1)
    mask = torch.full((1, 1, 23, 23), torch.finfo(torch.float32).min)
    for i in range(23):
        for j in range(i + 1):
            if i < 18 or not 2 <= j < 14:
                mask[0, 0, i, j] = 0
    want = llama(inputs_embeds=mixed, attention_mask=mask).logits[:, 18:]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    # 2: what follows the chorus does not reach its states, so the embedding is that of the same pass
    states = network.encoder(mixed)[:, 14:18].mean(1)
    torch.testing.assert_close(
        network.embedding(llama, opening, ids), torch.nn.functional.normalize(states, dim=-1), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_5_the_chorus_is_ordered_and_one_token_is_its_own_mean(llama, prompt, network):
    opening, ids = prompt(1, 2, seed=3)[0], prompt(2, 9)
    before = network.embedding(llama, opening, ids)
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(2))
    network.tokens.data = network.tokens.data.flip(0)
    assert (network.embedding(llama, opening, ids) - before).abs().max() > 1e-4
    one = Chorus(llama, 1)
    seen = one.encoder(torch.cat([embedded(llama, opening.expand(2, -1)), embedded(llama, ids), one.summaries(2, 1)], 1))
    torch.testing.assert_close(one.embedding(llama, opening, ids), torch.nn.functional.normalize(seen[:, -1], dim=-1))


def test_6_info_nce():
    eye = torch.eye(5)
    assert float(info_nce(eye, eye, 1e-3)) < 1e-6
    assert float(info_nce(torch.ones(5, 3), torch.ones(5, 3), 0.02)) == pytest.approx(math.log(5))
    queries, targets = (torch.nn.functional.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    loop = 0.0
    for i in range(5):
        scores = [math.exp(float(queries[i] @ targets[j]) / 0.1) for j in range(5)]
        loop -= math.log(scores[i] / sum(scores)) / 5
    assert float(info_nce(queries, targets, 0.1)) == pytest.approx(loop, rel=1e-4)


@pytest.fixture(scope="module")
def loaded():
    model, processor = laconic.load("testbed/vlm")
    return model.float(), processor


def test_images_and_texts_are_embedded_and_remembered(loaded, tmp_path):
    model, processor = loaded
    torch.manual_seed(0)
    spec = artifact_of("crem", model, Chorus(model, 16), tmp_path / "crem.safetensors", chorus=16, keeps=[0.111])
    method = CREM(keep=0.111, artifact=str(tmp_path / "crem.safetensors"))
    method.attach(model)
    image = drawn(pose("colour", 3)[0])
    found = method.embed(model, processor, [image, "red ring", "blue star", "red ring"])
    assert found.shape == (4, 128) and torch.equal(found[1], found[3]) and not torch.equal(found[1], found[2])
    with pytest.raises(PromptError, match="empty text"):
        method.embed(model, processor, [" "])
    context = laconic.read(model, processor, "", f"{spec},keep=0.111", images=[image])
    assert context.kept.entries == 2 + 16 and context.ask("Is there a ring?", max_new_tokens=2).ids
    words = laconic.read(model, processor, "Is there a red ring?", f"{spec},keep=0.111")
    assert words.kept.images == 0 and words.ask("Is there a ring?", max_new_tokens=2).ids


@pytest.mark.slow
def test_the_training_lowers_both_losses(loaded):
    model, processor = loaded
    fit = parse(find_fit("crem"), {"batch_size": "8", "steps": "1", "lr": "0.002"})
    network = fit.build(model, processor)
    batch = fit.batch(0)
    assert batch[1][2] == caption_of(2) != batch[1][3]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        terms = []
        for term in fit.loss(batch):
            term.backward()
            terms.append(term.item())
        optimizer.step()
        seen.append(terms)
    assert seen[-1][0] < seen[0][0] and seen[-1][1] < seen[0][1]


@pytest.mark.parametrize("left_out", ["retrieval", "generation"])
def test_a_training_with_one_of_the_losses(loaded, tmp_path, left_out):
    given = {"batch_size": "4", "steps": "1", "log_every": "1", left_out: "0"}
    lines = []
    Trainer(parse(find_fit("crem"), given), *loaded, tmp_path, lines.append).run()
    assert any(line.startswith("step 1 loss") and ("right" in line) == (left_out == "retrieval") for line in lines)


def test_captions_say_what_is_where():
    scene, _ = pose("position", 5)
    said = caption(scene).split(". ")
    assert len(said) == len(scene.shapes)
    for shape in scene.shapes:
        row, col = "bottom" if shape.y >= 48 else "top", "right" if shape.x >= 48 else "left"
        assert f"{shape.name} {row} {col}" in said


@pytest.mark.parametrize("settings", [{"retrieval": 0, "generation": 0}, {"file": "x.jsonl"}])
def test_trainings_of_nothing_are_refused(settings):
    with pytest.raises((ValueError, MediaError), match="crem"):
        find_fit("crem")(**settings)
