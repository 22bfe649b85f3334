"""CoLaR in a session: vectors are drawn, the mark is drawn, the speed is said."""

import pytest
import torch
from helpers.thinking import LATENT, MARK, TOKENIZER, answered, asked, tiny_thinker

import laconic
from laconic.artifact import Artifact, numbers
from laconic.errors import ArtifactError
from laconic.methods.reasoning.colar.thinker import LatentThinker


@pytest.fixture(scope="module")
def model():
    return tiny_thinker()


@pytest.fixture(scope="module")
def thinker(model):
    torch.manual_seed(4)
    made = LatentThinker(model, 16)
    with torch.no_grad():
        for p in made.decoder.parameters():
            p.mul_(1.1)
    return made


@pytest.fixture(scope="module")
def artifact(model, thinker, tmp_path_factory):
    path = tmp_path_factory.mktemp("colar") / "colar.safetensors"
    data = {"speeds": [1, 2, 4], "width": 16, "deviation": thinker.deviation}
    Artifact.of("colar", "trained", model, data, numbers(thinker)).save(path)
    return path


def test_steps_are_the_mean_vectors_of_the_trained_model(model, thinker, artifact):
    """Reference: embeddings of everything so far, run anew for every step."""
    ids = asked()
    opening = TOKENIZER.convert_tokens_to_ids(["speed", "2", "<think>"])
    with laconic.compress(model, f"colar:speed=2,temperature=0,most=5,artifact={artifact}", tokenizer=TOKENIZER):
        (said,) = answered(model, ids, 14)
    assert said[:3] == opening
    x, steps, token = thinker.embedded(torch.cat([ids[0], torch.tensor(opening)])[None]), 0, None
    while True:
        hidden = thinker.states(x)[:, -1]
        token = int(thinker.logits(hidden)[0].argmax())
        if steps and (token == MARK or steps == 5):
            break
        x = torch.cat([x, (thinker.latent_head(hidden)[0] * thinker.deviation)[:, None]], 1)
        steps += 1
    assert said[3 : 4 + steps] == [LATENT] * steps + [MARK]
    for token in said[3 + steps :]:
        if token != MARK:
            assert int(thinker.logits(thinker.states(x)[:, -1])[0].argmax()) == token
        x = torch.cat([x, thinker.embedded(torch.tensor([[token]]))], 1)


def test_8_deterministic_answers_repeat_and_drawn_ones_vary(model, artifact):
    ids = asked(6)

    def run(temperature, seed):
        torch.manual_seed(seed)
        method = f"colar:speed=4,temperature={temperature},most=6,artifact={artifact}"
        with laconic.compress(model, method, tokenizer=TOKENIZER):
            return answered(model, ids, 16)

    assert run(0, 1) == run(0, 2)
    assert run(1.0, 1) == run(1.0, 1) and run(1.0, 1) != run(1.0, 2)


def test_6_rows_that_have_finished_answer_while_others_think(model, artifact):
    ids = asked(5)
    ids[0, :4] = 0
    method = f"colar:speed=2,temperature=0,most=6,artifact={artifact}"
    with laconic.compress(model, method, tokenizer=TOKENIZER):
        together = answered(model, ids, 14)
    alone = []
    for row in ids:
        with laconic.compress(model, method, tokenizer=TOKENIZER):
            alone += answered(model, row[row != 0][None], 14)
    assert together == alone


def test_the_model_is_as_before(model, artifact):
    before = answered(model, asked())
    with laconic.compress(model, f"colar:artifact={artifact}", tokenizer=TOKENIZER):
        answered(model, asked())
    assert answered(model, asked()) == before


def test_bad_settings_are_refused(model, artifact):
    with pytest.raises(ValueError, match=r"speed=3: this artifact knows 1, 2, 4"):
        laconic.compress(model, f"colar:speed=3,artifact={artifact}", tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="temperature=-1"):
        laconic.create_method("colar:temperature=-1")
    with pytest.raises(ArtifactError):
        laconic.compress(tiny_thinker(seed=9), f"colar:artifact={artifact}", tokenizer=TOKENIZER)
