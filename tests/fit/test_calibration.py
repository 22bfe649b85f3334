"""The windows of a calibration text."""

import pytest
import torch
from helpers.testbed_model import tokenizer  # noqa: F401

import laconic
from laconic.fit import Trainer
from laconic.fit.calibration import windows_of
from laconic.methods.weights.wanda import WandaFit
from laconic.tasks.text import corpus


def test_windows_are_stretches_of_the_training_documents(llama, tokenizer):  # noqa: F811
    fit = WandaFit(windows=3, tokens=40)
    artifact = Trainer(fit, llama, tokenizer).run()
    ids = artifact.tensors["ids"]
    assert ids.shape == (3, 40) and ids.dtype == torch.int32 and artifact.kind == "measured"
    held_out = "\n".join(corpus.lines("prose", held_out=True))
    text = "\n".join(corpus.lines("prose"))
    for row in ids:
        piece = tokenizer.decode(row)[5:-5]
        assert piece in text and piece not in held_out
    assert torch.equal(Trainer(WandaFit(windows=3, tokens=40), llama, tokenizer).run().tensors["ids"], ids)
    assert not torch.equal(Trainer(WandaFit(windows=3, tokens=40, seed=1), llama, tokenizer).run().tensors["ids"], ids)


def test_a_text_of_ones_own(llama, tokenizer, tmp_path):  # noqa: F811
    file = tmp_path / "own.txt"
    file.write_text("The code for falcon is 4815263. " * 20, encoding="utf-8")
    artifact = Trainer(WandaFit(windows=2, tokens=8, text=file), llama, tokenizer).run()
    assert artifact.data["source"] == "own.txt"
    assert tokenizer.decode(artifact.tensors["ids"][0]) in file.read_text(encoding="utf-8")


def test_a_text_that_is_too_short(tokenizer):  # noqa: F811
    with pytest.raises(ValueError, match="needs at least tokens=64"):
        windows_of(tokenizer, "a few words", 1, 64, 0)


def test_the_artifact_is_for_its_model(llama, make_llama, tokenizer, tmp_path):  # noqa: F811
    file = tmp_path / "w.safetensors"
    Trainer(WandaFit(windows=1, tokens=8), llama, tokenizer).run().save(file)
    with pytest.raises(laconic.ArtifactError, match="other weights"):
        laconic.compress(make_llama(seed=8), laconic.Wanda(artifact=str(file)))
