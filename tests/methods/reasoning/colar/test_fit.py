"""CoLaR's training: the layout of a batch, the labels, and that blocks of one are plain fine-tuning."""

import random

import pytest
import torch
import torch.nn.functional as F
from helpers.thinking import TOKENIZER, tiny_thinker

from laconic.fit.chains import IGNORED, padded
from laconic.fit.trainer import Trainer
from laconic.methods.reasoning.colar.fit import CoLaRFit
from laconic.methods.reasoning.colar.network import merged


@pytest.fixture(scope="module")
def fit():
    made = CoLaRFit(width=16, batch_size=4)
    made.build(tiny_thinker(), TOKENIZER)
    return made


def solutions(fit, rows=4):
    return fit.solutions.draw(random.Random(5), rows)


@pytest.mark.parametrize("speed", [1, 2, 3, 4, 5])
def test_2_the_opening_stands_alone_before_the_blocks_and_no_token_is_lost(fit, speed):
    drawn = solutions(fit)
    given = fit.layout(drawn, speed)
    opening = TOKENIZER.convert_tokens_to_ids(["speed", str(speed), "<think>"])
    for i, x in enumerate(drawn):
        before, blocks = x.prompt + opening, -(-len(x.thought) // speed)
        ids = torch.tensor(x.thought)
        wanted = torch.cat(
            [
                fit.thinker.embedded(torch.tensor(before)),
                merged(fit.thinker.embedded(ids)[None], torch.ones(1, len(ids), dtype=torch.long), speed)[0][0],
                fit.thinker.embedded(torch.tensor(x.answer)),
            ]
        )
        torch.testing.assert_close(given.embeddings[i, : len(wanted)], wanted)
        assert not given.embeddings[i, len(wanted) :].any()
        labels = given.labels[i]
        assert (labels[: len(before)] == IGNORED).all() and (labels[len(wanted) :] == IGNORED).all()
        for b in range(blocks):
            assert int(labels[len(before) + b]) in x.thought[b * speed : (b + 1) * speed]
        assert labels[len(before) + blocks : len(wanted)].tolist() == x.answer


@pytest.mark.parametrize("speed", [1, 3])
def test_4_every_step_is_paired_with_the_input_after_it_and_the_last_with_the_mark(fit, speed):
    drawn = solutions(fit)
    given = fit.layout(drawn, speed)
    mark = fit.thinker.embedded(torch.tensor([TOKENIZER.convert_tokens_to_ids("###")]))[0]
    for i, x in enumerate(drawn):
        at = torch.nonzero(given.steps[i]).flatten()
        assert at[0] == len(x.prompt) + 2 and len(at) == -(-len(x.thought) // speed) + 1
        torch.testing.assert_close(given.embeddings[i, at[-1] + 1], mark)


def test_3_blocks_of_one_are_plain_fine_tuning(fit, monkeypatch):
    drawn = solutions(fit)
    opening = TOKENIZER.convert_tokens_to_ids(["speed", "1", "<think>"])
    plain = [type(x)(x.problem, x.prompt + opening, x.thought, x.answer) for x in drawn]
    ids, labels = padded(plain, 0)
    logits = fit.thinker.lm(input_ids=ids, attention_mask=(torch.arange(ids.shape[1]) < 10**6).expand_as(ids)).logits
    wanted = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    monkeypatch.setattr(fit, "distance", lambda *given: torch.zeros(()))
    torch.testing.assert_close(fit.loss((drawn, 1)), wanted, atol=1e-6, rtol=0)


def test_the_objectives_are_the_papers(fit):
    wanted, mean, log_std = torch.randn(7, 5), torch.randn(7, 5), torch.full((7, 5), -30.0)
    torch.testing.assert_close(fit.distance(wanted, mean, log_std), (mean - wanted).square().mean())
    other = CoLaRFit(objective="nll")
    log_std = torch.randn(7, 5) / 4
    density = torch.distributions.Normal(mean, log_std.exp()).log_prob(wanted)
    torch.testing.assert_close(other.distance(wanted, mean, log_std), -density.mean())


def test_a_training_leaves_the_model_as_it_is_and_learns(tmp_path):
    model = tiny_thinker()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    lines = []
    fit = CoLaRFit(width=16, batch_size=8, steps=12, log_every=6, lr=3e-3)
    artifact = Trainer(fit, model, TOKENIZER, tmp_path, lines.append).run()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    first, last = (float(line.split("loss ")[1].split()[0]) for line in (lines[0], lines[-1]))
    assert last < first
    assert {name.split(".")[0] for name in artifact.tensors} == {"decoder", "latent_head"}
    assert artifact.data["speeds"] == [1, 2, 3, 4, 5]
