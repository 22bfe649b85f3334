"""LoRA on encoders: it begins as the model, what is saved are updates alone, merging changes nothing, and peft reads it."""

import builtins

import pytest
import torch
from transformers import LlamaForCausalLM

import laconic
from laconic.artifact import Artifact, numbers
from laconic.errors import ArtifactError, MissingPackageError
from laconic.fit import Trainer
from laconic.fit.find import find_fit
from laconic.fit.settings import parse
from laconic.memory import lora
from laconic.memory.encoder import Encoder

WITH_ENCODER = ("autocompressor", "ccf", "compllm", "gist", "gmsa", "icae", "x500")
WITHOUT = ("beacon", "c3", "comprexit", "mean_pool", "uniicl", "xrag")


@pytest.fixture(scope="module")
def loaded():
    return laconic.load("testbed/facts")


def trained(loaded, name, steps=2, **settings):
    given = {"steps": steps, "batch_size": 2, "rank": 4, **settings}
    cls = find_fit(name)
    if "restoring" in cls().settings():
        given["restoring"] = 0
    return Trainer(parse(cls, {key: str(value) for key, value in given.items()}), *loaded).run()


def moved(network):
    """Updates that are no longer zero."""
    with torch.no_grad():
        for key, x in network.named_parameters():
            if ".lora_B." in key:
                x.normal_(std=0.05)
    return network


@torch.no_grad()
def test_it_begins_as_the_model_and_merging_keeps_what_it_became(loaded):
    model, _ = loaded
    embeddings = torch.randn(2, 9, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    want = Encoder(model)(embeddings)
    encoder = lora.adapt(Encoder(model), 4)
    assert torch.equal(encoder(embeddings), want)
    changed = moved(encoder)(embeddings)
    assert (changed - want).abs().max() > 0.01
    torch.testing.assert_close(lora.merge(encoder)(embeddings), changed, atol=1e-4, rtol=1e-4)


def test_only_updates_are_trained_and_saved_and_they_come_back(loaded):
    model, _ = loaded
    encoder = moved(lora.adapt(Encoder(model), 4))
    assert all((".lora_" in name) == x.requires_grad for name, x in encoder.named_parameters())
    assert all("self_attn" in name for name, x in encoder.named_parameters() if x.requires_grad)
    state = {name: x.clone() for name, x in encoder.state_dict().items()}
    assert state and all(".lora_" in name for name in state)
    again = lora.adapt(Encoder(model), 4)
    again.load_state_dict(state)
    assert all(torch.equal(x, dict(again.named_parameters())[name]) for name, x in encoder.named_parameters())
    state.popitem()
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict(state)


@pytest.mark.parametrize("name", WITH_ENCODER)
def test_a_training_with_a_rank_gives_a_small_artifact_that_answers(loaded, name, tmp_path):
    model, tokenizer = loaded
    artifact = trained(loaded, name, lr=0.05)
    artifact.save(tmp_path / "a.safetensors")
    whole = sum(x.numel() for x in numbers(Encoder(model)).values())
    assert artifact.data["rank"] == 4 and sum(x.numel() for x in artifact.tensors.values()) < whole / 4
    updates = [x for key, x in artifact.tensors.items() if "lora_B" in key]
    assert sum(bool(x.any()) for x in updates) >= 0.8 * len(updates)  # the last layer's output may be of no use to it
    spec = f"{name}:keep=0.5,artifact={tmp_path / 'a.safetensors'}"
    memory = laconic.Memory.of(model, tokenizer, "c5 a3 f0 b1 c4 d3", spec)
    again = laconic.Memory.of(model, tokenizer, "c5 a3 f0 b1 c4 d3", spec)
    assert memory.entries == again.entries >= 3
    for module in memory.method.network.modules():
        assert getattr(module, "merged", True)  # of peft's layers: nothing is computed twice
        assert not any(x.requires_grad for x in module.parameters())


def test_the_answers_after_merging_are_those_of_the_training(loaded, tmp_path):
    """What the artifact restores makes the same soft tokens as the network that was trained."""
    model, tokenizer = loaded
    fit = parse(find_fit("icae"), {"steps": "3", "batch_size": "2", "rank": "4", "restoring": "0", "lr": "0.05"})
    Trainer(fit, model, tokenizer).run().save(tmp_path / "a.safetensors")
    method = laconic.create_method(f"icae:keep=0.5,artifact={tmp_path / 'a.safetensors'}")
    method.attach(model)
    ids = torch.tensor(tokenizer.encode("c5 a3 f0 b1 c4 d3", add_special_tokens=False))[None]
    with torch.no_grad():
        want = fit.compressor.contexts(model, ids, 0.5)
        torch.testing.assert_close(method.network.contexts(model, ids, 0.5), want, atol=2e-2, rtol=2e-2)  # saved in 16 bits


def test_a_resumed_training_equals_an_unbroken_one(loaded, tmp_path):
    def fit():
        return parse(find_fit("compllm"), {"batch_size": "2", "rank": "4", "save_every": "2", "steps": "4"})

    def stop(step):
        if step == 3:
            raise KeyboardInterrupt
        return batch(step)

    whole, broken = Trainer(fit(), *loaded).run(), fit()
    batch, broken.batch = broken.batch, stop
    with pytest.raises(KeyboardInterrupt):
        Trainer(broken, *loaded, tmp_path).run()
    resumed = Trainer(fit(), *loaded, tmp_path).run(resume=True)
    assert all(torch.equal(resumed.tensors[name], x) for name, x in whole.tensors.items())


@pytest.mark.parametrize("name", WITHOUT)
def test_what_has_no_copy_of_the_decoder_says_so(loaded, name):
    with pytest.raises(ValueError, match=r"rank=4: .* no copy of the model's decoder"):
        trained(loaded, name)


def test_without_peft_the_message_says_what_to_install(loaded, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **more):
        if name.split(".")[0] == "peft":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"rank=4 needs peft: pip install 'laconic-transformers\[lora\]'"):
        lora.adapt(Encoder(loaded[0]), 4)


def test_peft_loads_what_is_exported(loaded, tmp_path):
    """A model with the exported adapter has the hidden states of the encoder."""
    peft = pytest.importorskip("peft")
    model, tokenizer = loaded
    artifact = trained(loaded, "compllm", steps=3, lr=0.05)
    lora.export(artifact, tmp_path / "adapter")
    artifact.save(tmp_path / "a.safetensors")
    method = laconic.create_method(f"compllm:keep=0.5,artifact={tmp_path / 'a.safetensors'}")
    method.attach(model)
    ids = torch.tensor(tokenizer.encode("c5 a3 f0 b1", add_special_tokens=False))[None]
    plain = LlamaForCausalLM(model.config)
    plain.load_state_dict(model.state_dict())
    adapted = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        got = adapted.base_model.model.model(ids).last_hidden_state.float()
        want = method.network.encoder(model.get_input_embeddings()(ids).float())
        base = model.model(ids).last_hidden_state.float()
    torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)
    assert (want - base).abs().max() > 0.05


def test_what_has_no_updates_or_several_encoders_is_not_exported(loaded, tmp_path):
    with pytest.raises(ArtifactError, match="holds no LoRA"):
        lora.export(Artifact.of("icae", "trained", loaded[0], {"rank": None}, {"x": torch.zeros(1)}), tmp_path)
    with pytest.raises(ArtifactError, match="several encoders"):
        lora.export(trained(loaded, "gmsa"), tmp_path)
