"""Coconut in a session: hidden states are read again, then words come."""

import pytest
import torch
from helpers.thinking import LATENT, TOKENIZER, answered, asked, tiny_thinker

import laconic
from laconic.artifact import Artifact, numbers
from laconic.fit.thinker import Thinker


@pytest.fixture(scope="module")
def model():
    return tiny_thinker()


@pytest.fixture(scope="module")
def thinker(model):
    made = Thinker(model)
    with torch.no_grad():
        for p in made.decoder.parameters():
            p.mul_(1.1)
    return made


@pytest.fixture(scope="module")
def artifact(model, thinker, tmp_path_factory):
    path = tmp_path_factory.mktemp("coconut") / "coconut.safetensors"
    Artifact.of("coconut", "trained", model, {"thoughts": 3}, numbers(thinker)).save(path)
    return path


def test_thoughts_are_the_last_hidden_states_of_the_trained_model(model, thinker, artifact):
    """Reference: everything read anew for every step."""
    ids = asked()
    with laconic.compress(model, f"coconut:artifact={artifact}", tokenizer=TOKENIZER):
        (said,) = answered(model, ids, 9)
    x = thinker.embedded(ids)
    for token in said[:3]:
        assert token == LATENT
        x = torch.cat([x, thinker.states(x)[:, -1:]], 1)
    for token in said[3:]:
        assert int(thinker.logits(thinker.states(x)[:, -1])[0].argmax()) == token
        x = torch.cat([x, thinker.embedded(torch.tensor([[token]]))], 1)


def test_padded_rows_think_as_they_do_alone(model, artifact):
    ids = asked(3)
    ids[0, :4] = 0
    alone = []
    with laconic.compress(model, f"coconut:thoughts=2,artifact={artifact}", tokenizer=TOKENIZER):
        together = answered(model, ids, 10)
    for row in ids:
        with laconic.compress(model, f"coconut:thoughts=2,artifact={artifact}", tokenizer=TOKENIZER):
            alone += answered(model, row[row != 0][None], 10)
    assert together == alone
    assert all(row[:2] == [LATENT] * 2 and LATENT not in row[2:] for row in together)


def test_no_thoughts_are_plain_words(model, artifact):
    with laconic.compress(model, f"coconut:thoughts=0,artifact={artifact}", tokenizer=TOKENIZER):
        assert LATENT not in answered(model, asked())[0]
    with pytest.raises(ValueError, match="thoughts=-1"):
        laconic.create_method("coconut:thoughts=-1")
