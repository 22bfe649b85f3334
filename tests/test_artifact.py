"""Artifacts: written whole, checked when read, found by the model they belong to; each damage has its own message."""

import copy
import json
import os
import pickle
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import laconic
from laconic import artifact as module
from laconic.artifact import FILE, KEY, Artifact, fingerprint, numbers
from laconic.errors import ArtifactError


def made(model, **given):
    tensors = {"line.weight": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16), "count": torch.tensor(7)}
    given = {"data": {"echo": [[0.5, 1e-05], [2.0, -3.0]], "memory": 12}, "tensors": tensors, **given}
    return Artifact.of("lococo", "trained", model, settings={"seed": 3, "lengths": (1, 2)}, **given)


@pytest.fixture
def path(llama, tmp_path):
    made(llama).save(tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def header(path, **changed):
    """Rewrite a file with other facts and the same tensors."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        facts = json.loads(json.loads(file.read(size))["__metadata__"][KEY])
    facts = {name: value for name, value in (facts | changed).items() if value is not ...}
    save_file(load_file(path), path, {KEY: json.dumps(facts)})


def test_a_fingerprint_is_of_the_weights_not_of_their_type(make_llama):
    model = make_llama(layers=2).to(torch.bfloat16)
    known = fingerprint(model)
    assert fingerprint(model.to(torch.float32)) == known and len(known) == 32
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert fingerprint(model) != known
    assert fingerprint(make_llama(layers=2, seed=1)) != fingerprint(make_llama(layers=2, seed=0))


def test_what_is_written_is_read(llama, path):
    found = Artifact.load(path)
    assert found == made(llama) and found.settings["lengths"] == [1, 2] and found.kind == "trained"
    assert found.fingerprint == fingerprint(llama) and set(found.versions) == {"laconic", "torch", "transformers"}
    for name, tensor in made(llama).tensors.items():
        assert found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor)
    assert Artifact.find("lococo", llama, str(path)) == found
    with open(path, "rb") as file:  # one key holds all facts
        assert list(json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]) == [KEY]


def test_facts_alone_need_no_tensors(llama, tmp_path):
    Artifact.of("fastkv", "measured", llama, {"tsp_layer": 2}).save(tmp_path / "b.safetensors")
    found = Artifact.load(tmp_path / "b.safetensors")
    assert found.data == {"tsp_layer": 2} and found.tensors == {}
    with pytest.raises(ArtifactError, match="holds no tensors"):
        found.restore(nn.Linear(2, 1))


def test_a_fact_that_is_not_there_is_named_with_its_file(llama, path):
    facts = Artifact.load(path).data
    said = rf"the artifact '{re.escape(str(path))}' lacks the fact 'layers', which lococo reads \(it has echo, memory\)"
    for one in (facts, copy.deepcopy(facts), pickle.loads(pickle.dumps(facts))):
        with pytest.raises(ArtifactError, match=rf"{said}.*`laconic fit lococo --model MODEL --out FILE`"):
            one["layers"]
        assert one == facts == {"echo": [[0.5, 1e-05], [2.0, -3.0]], "memory": 12} and one.get("layers") is None
    with pytest.raises(ArtifactError, match=r"this artifact of lococo lacks the fact 'layers', .*\(it has none\)"):
        made(llama, data={}).data["layers"]


def test_the_same_artifact_is_the_same_file(llama, path, tmp_path):
    Artifact.load(path).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_only_json_and_known_kinds_are_facts(llama):
    with pytest.raises(TypeError, match="JSON serializable"):
        Artifact.of("lococo", "trained", llama, {"x": torch.ones(2)})
    with pytest.raises(ValueError, match="JSON compliant"):
        Artifact.of("lococo", "trained", llama, {"x": float("nan")})
    with pytest.raises(ValueError, match="choose one of measured, trained, published"):
        Artifact.of("lococo", "guessed", llama, {})


def test_tied_weights_are_saved_once(tmp_path, llama):
    net = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5, bias=False)})
    net["head"].weight = net["embed"].weight
    assert list(numbers(net)) == ["embed.weight"]
    Artifact.of("x", "trained", llama, {}, numbers(net)).save(tmp_path / "tied.safetensors")


def test_tensors_go_back_into_a_module(llama, tmp_path):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    Artifact.of("x", "trained", llama, {}, numbers(net, torch.bfloat16)).save(tmp_path / "n.safetensors")
    found = Artifact.load(tmp_path / "n.safetensors")
    assert found.tensors["0.weight"].dtype == torch.bfloat16 and found.tensors["1.num_batches_tracked"].dtype == torch.int64
    back = found.restore(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))
    assert torch.equal(back[0].weight, net[0].weight.bfloat16().float()) and back[0].weight.dtype == torch.float32
    assert not back.training and not any(p.requires_grad for p in back.parameters())
    with pytest.raises(ArtifactError, match=r"do not fit x: .*`laconic fit x"):
        found.restore(nn.Linear(3, 2))


def test_another_method_or_model_is_refused(llama, make_llama, path):
    with pytest.raises(ArtifactError, match=r"is for lococo, not for compresskv; make one with `laconic fit compresskv"):
        Artifact.find("compresskv", llama, str(path))
    with pytest.raises(ArtifactError, match=r"made for other weights .*`laconic fit lococo --model MODEL --out FILE`"):
        Artifact.find("lococo", make_llama(seed=5), str(path))


def test_the_shipped_one_of_these_weights_is_found(llama, make_llama, tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match=r"none is shipped.*`laconic fit lococo.*pass artifact=FILE, or guess\. Shipped"):
        Artifact.find("lococo", llama, None, "guess")
    monkeypatch.setattr(module, "SHIPPED", tmp_path)
    made(llama).save(tmp_path / "lococo-own.safetensors")
    made(make_llama(seed=5)).save(tmp_path / "lococo-other.safetensors")
    assert Artifact.shipped("lococo-*") == ["lococo-other", "lococo-own"] and Artifact.shipped("own") == []
    assert Artifact.find("lococo", llama, None) == Artifact.load("lococo-own") == made(llama)


def test_published_constants_fit_whoever_asks_for_them_by_name(llama):
    name = "compresskv-llama-3.1-8b-instruct"
    found = Artifact.find("compresskv", llama, name)
    assert (found.fingerprint, found.kind) == (None, "published")
    with pytest.raises(ArtifactError, match="none is shipped"):
        Artifact.find("compresskv", llama, None)


def test_shipped_ones_are_whole():
    assert {"compresskv-llama-3.1-8b-instruct", "compresskv-mistral-7b-instruct-v0.3"} <= set(Artifact.shipped("compress*"))
    for name in Artifact.shipped():
        found = Artifact.load(name)
        assert name.startswith(found.method) and found.data
        own = "-testbed-" in name or name.endswith("-smollm2")
        assert (found.kind == "published") == (found.fingerprint is None) == (not own)
        assert found.tensors or found.kind != "trained"  # measurements may have some, too
        assert not {"/work", "/home", "/tmp"} & {w for w in json.dumps(found.settings).split('"') if w.startswith("/")}


def test_a_folder_is_its_artifact(llama, path, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ArtifactError, match=f"holds no {FILE}"):
        Artifact.load(folder)
    path.rename(folder / FILE)
    assert Artifact.load(str(folder)) == made(llama)


def test_files_that_are_none(tmp_path):
    for text in ("", "[]", "{}", '{"method": "x"}', "{"):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ArtifactError, match="is not an artifact written by `laconic fit`"):
            Artifact.load(tmp_path / "r.json")
    with pytest.raises(ArtifactError, match=r"does not exist\. Shipped: .*compresskv-llama"):
        Artifact.load(tmp_path / "other.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match="is not an artifact"):
        Artifact.load(tmp_path / "x.safetensors")


def test_damage_is_seen(path):
    whole = path.read_bytes()
    for stop in (4, 60, len(whole) - 1):
        path.write_bytes(whole[:stop])
        with pytest.raises(ArtifactError, match="Or it is damaged"):
            Artifact.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit of a tensor
    with pytest.raises(ArtifactError, match=r"checksum does not match.*`laconic fit lococo --model MODEL --out FILE`"):
        Artifact.load(path)
    path.write_bytes(whole.replace(b"0.5", b"0.6", 1))  # one digit of the facts
    with pytest.raises(ArtifactError, match="checksum does not match"):
        Artifact.load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "has format 2 and this laconic reads format 1; update laconic"),
        ({"format": ...}, "is not an artifact"),
        ({"kind": ...}, "is not an artifact written by `laconic fit`. It lacks a fact: KeyError"),
        ({"sha256": ...}, "is not an artifact"),
        ({"fingerprint": "0" * 32}, "checksum does not match"),
    ],
)
def test_other_facts_are_refused(path, changed, message):
    header(path, **changed)
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(path)


def test_files_of_laconic_0_1_say_how_to_convert_them(tmp_path):
    old = {"method": "fastkv", "model": "m", "fingerprint": None, "data": {"tsp_layer": 1}, "made": {}, "versions": {}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    save_file({"0.nu": torch.ones(1)}, tmp_path / "old.safetensors", {"laconic": json.dumps({"method": "lococo"})})
    for name in ("old.json", "old.safetensors"):
        with pytest.raises(ArtifactError, match=rf"laconic 0\.1; convert it with `laconic fit --convert .*{name} NEW"):
            Artifact.load(tmp_path / name)


def test_a_write_that_fails_leaves_the_old_file(llama, path, monkeypatch):
    before = path.read_bytes()

    def dies(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(module, "save_file", dies)
    with pytest.raises(ArtifactError, match=r"cannot write the artifact .*disk full"):
        made(llama, data={}).save(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
    with pytest.raises(ArtifactError, match="cannot write"):
        made(llama).save(path.parent / "nowhere" / "a.safetensors")


def test_a_hub_id_is_fetched(llama, path, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *given: asked.append(given) or str(path))
    assert Artifact.load("some-org/lococo.v2") == made(llama) and asked == [("some-org/lococo.v2", FILE)]
    monkeypatch.chdir(tmp_path)
    for text in ("runs/a.safetensors", "runs/a.json", "/some/where", "a/b/c", "./name", "../name"):  # files, not ids
        with pytest.raises(ArtifactError, match="does not exist"):
            Artifact.load(text)
    assert len(asked) == 1


def test_a_hub_that_cannot_be_reached_is_an_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ArtifactError, match=r"no file 'no-such-org/nothing' here.*cannot be fetched.*or give a file"):
        Artifact.load("no-such-org/nothing")


def test_the_old_name_of_the_error_goes_on_for_one_release():
    with pytest.warns(DeprecationWarning, match="RecipeError is deprecated"):
        assert laconic.RecipeError is ArtifactError


def test_a_misspelt_shipped_name_is_offered_the_known_one_before_the_hub_is_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *given: pytest.fail("the Hub was asked"))
    name = Artifact.shipped()[0]
    with pytest.raises(ArtifactError, match=f"no artifact is called '{name}x'; did you mean {name}"):
        Artifact.load(f"{name}x")
