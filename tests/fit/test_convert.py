"""Files of laconic 0.1 become artifacts; numbers stay bit for bit what they were."""

import json

import pytest
import torch
from safetensors.torch import save_file

from laconic.artifact import Artifact
from laconic.errors import ArtifactError
from laconic.fit.convert import convert

RECIPE = {
    "method": "fastkv",
    "model": "lm",
    "fingerprint": "e1",
    "data": {"tsp_layer": 1, "distances": [0.25, 1e-05]},
    "made": {"by": "laconic calibrate fastkv", "seed": 3, "lengths": [256]},
    "versions": {"laconic": "0.1.0"},
}


def test_a_recipe(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(RECIPE))
    found = convert(tmp_path / "r.json")
    assert (found.method, found.kind, found.model, found.fingerprint) == ("fastkv", "measured", "lm", "e1")
    assert (found.data, found.settings) == (RECIPE["data"], {"seed": 3, "lengths": [256]})
    assert found.versions == {"laconic": "0.1.0"} and found.tensors == {}
    (tmp_path / "p.json").write_text(json.dumps(RECIPE | {"fingerprint": None, "made": {"by": "published"}}))
    found = convert(str(tmp_path / "p.json"))
    assert (found.kind, found.fingerprint, found.settings) == ("published", None, {"by": "published"})


def test_weights(tmp_path):
    tensors = {"0.nu": torch.tensor([0.1, float("nan")], dtype=torch.bfloat16), "0.count": torch.tensor(3)}
    made = {"settings": {"slack": 2}, "versions": {"torch": "2"}, "pairs": 7}
    head = {"method": "lococo", "model": "m", "fingerprint": "f", "memory": 128, "made": made}
    save_file(tensors, tmp_path / "w.safetensors", {"laconic": json.dumps(head)})
    convert(tmp_path / "w.safetensors").save(tmp_path / "new.safetensors")
    found = Artifact.load(tmp_path / "new.safetensors")
    assert (found.method, found.kind, found.model, found.fingerprint) == ("lococo", "trained", "m", "f")
    assert found.data == {"memory": 128, "pairs": 7}
    assert (found.settings, found.versions) == ({"slack": 2}, {"torch": "2"})
    for name, x in tensors.items():
        assert found.tensors[name].dtype == x.dtype
        assert x.flatten().view(torch.uint8).tolist() == found.tensors[name].flatten().view(torch.uint8).tolist()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="does not exist"):
        convert(tmp_path / "none.json")
    for name, text in (("a.json", "{}"), ("b.json", "[]"), ("c.json", "{"), ("d.safetensors", "x")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ArtifactError, match=r"is neither a recipe nor a weights file of laconic 0\.1"):
            convert(tmp_path / name)
    Artifact("fastkv", "measured", "m", None, {"tsp_layer": 1}).save(tmp_path / "new.safetensors")
    with pytest.raises(ArtifactError, match="is neither a recipe"):
        convert(tmp_path / "new.safetensors")
