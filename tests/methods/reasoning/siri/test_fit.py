"""SIRI's training: the cap of a step, also after resuming, and no second model."""

import pytest
import torch
from helpers.thinking import TOKENIZER, answered, asked, tiny_thinker

import laconic
from laconic.fit.trainer import Trainer
from laconic.methods.reasoning.siri.fit import SIRIFit

END = TOKENIZER.eos_token_id
SMALL = {"questions": 2, "group": 2, "longest": 40, "low": 24, "cycle": 4, "style": "terse", "most_steps": 2, "log_every": 1}


def caps(lines):
    return [int(line.split("cap ")[1].split()[0]) for line in lines if line.startswith("step")]


def test_7_a_resumed_training_goes_on_under_the_cap_of_its_step(tmp_path):
    model, lines = tiny_thinker(eos_token_id=END), []
    Trainer(SIRIFit(steps=2, **SMALL), model, TOKENIZER, tmp_path, lines.append).run()
    artifact = Trainer(SIRIFit(steps=4, **SMALL), model, TOKENIZER, tmp_path, lines.append).run(resume=True)
    assert caps(lines) == [40, 32, 24, 32]
    assert artifact.data == {"phase": "high"}
    assert SIRIFit(steps=2, **SMALL).facts() == {"phase": "low"}


def test_6_there_is_no_reference_model():
    fit = SIRIFit(**SMALL)
    module = fit.build(tiny_thinker(eos_token_id=END), TOKENIZER)
    held = {id(p) for x in vars(fit).values() if isinstance(x, torch.nn.Module) for p in x.parameters()}
    own = (
        {id(p) for p in fit.model.parameters()} | {id(p) for p in module.lm.parameters()} | set(map(id, module.parameters()))
    )
    assert held <= own


def test_a_lowest_cap_under_which_nothing_fits_is_refused():
    with pytest.raises(ValueError, match="siri: answers are cut after 5 tokens"):
        SIRIFit(**{**SMALL, "low": 5}).build(tiny_thinker(eos_token_id=END), TOKENIZER)


def test_the_trained_weights_run_in_a_session(tmp_path):
    model, path = tiny_thinker(eos_token_id=None), tmp_path / "siri.safetensors"
    fit = SIRIFit(steps=1, **SMALL)
    module = fit.build(model, TOKENIZER)
    with torch.no_grad():
        for p in module.decoder.parameters():
            p.mul_(1.3)
    laconic.Artifact.of("siri", "trained", model, {}, {k: v.clone() for k, v in module.state_dict().items()}).save(path)
    before = answered(model, asked())
    with laconic.compress(model, f"siri:artifact={path}", tokenizer=TOKENIZER):
        assert answered(model, asked()) == answered(module.lm, asked()) != before
    assert answered(model, asked()) == before
