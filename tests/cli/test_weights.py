"""Methods that act on weights, from `laconic fit` to `laconic run` and `laconic bench`."""

import json

import pytest
import torch

import laconic as api
from laconic.methods.weights.eas.applied import applied
from laconic.methods.weights.eas.network import Adapters

SMALL = ["--set=skip=1", "--set=steps=2", "--set=tokens=64", "--set=batch_size=1", "--set=lr=0.05"]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Makes `model` an artifact and returns its spec."""
    made = {}

    def spec(laconic, model):
        if model not in made:
            folder = tmp_path_factory.mktemp("eas")
            (folder / "text.txt").write_text("The code for falcon is 4815263. " * 20, encoding="utf-8")
            out = folder / "a.safetensors"
            shown = laconic.json("fit", "eas", "--model", model, "--out", out, *SMALL, f"--set=text={folder / 'text.txt'}")
            assert shown["kind"] == "trained" and shown["data"]["skip"] == [1]
            made[model] = f"eas:artifact={out}"
        return made[model]

    return spec


def test_run(laconic, model, context, fitted):
    """The answer is that of the adapters, unfolded and outside of a session."""
    spec = fitted(laconic, model)
    asked = ["--model", model, "--context", context, "--question", "Wo?", "--max-new-tokens", 5]
    found = laconic.json("run", *asked, "--method", spec)
    assert [entry["mean"] for entry in found["entries"]] == [found["prompt"]["tokens"], 0, found["prompt"]["tokens"]]
    assert found["asked"] == found["achieved"] == pytest.approx(2 / 3)
    loaded, tokenizer = api.load(model)
    artifact = api.Artifact.load(spec.partition("=")[2])
    adapters = artifact.restore(Adapters.of(loaded, artifact.data["skip"], **artifact.data["adapters"]))
    with open(context, encoding="utf-8") as file:
        ids = torch.tensor([api.prompts.text.build(tokenizer, file.read(), "Wo?").ids])
    with applied(loaded, adapters):
        out = loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert found["answer"] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_run_beside_a_method_for_the_cache(laconic, model, context, fitted):
    both = ["--method", fitted(laconic, model), "--method", "snapkv:keep=0.25,window=8"]
    found = laconic.json("run", "--model", model, "--context", context, "--question", "Wo?", *both)
    kept = int(0.25 * found["prompt"]["tokens"])
    assert [entry["mean"] for entry in found["entries"]] == [kept, 0, kept] and found["warnings"] == []
    assert found["asked"] == pytest.approx(0.25 * 2 / 3)
    assert found["achieved"] == pytest.approx(kept / found["prompt"]["tokens"] * 2 / 3)


def test_run_without_an_artifact_names_the_command(laconic, model, context):
    said = laconic.bad(2, "run", "--model", model, "--context", context, "--question", "Wo?", "--method", "eas")
    assert "eas needs an artifact for this model" in said and "laconic fit eas" in said


def test_bench_has_one_row_per_sample_at_every_mode(laconic, model, fitted, tmp_path):
    spec = fitted(laconic, model)
    done = laconic(
        "bench", "--model", model, "--tasks=kvturns", "--methods", spec, "--keep=0.5,0.1", "--lengths=256", "--samples=1",
        "--modes=aware,agnostic,turns,turns_aware", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    own = [row for row in rows if row["method"] == spec]
    assert [row["mode"] for row in own] == ["aware", "agnostic", "turns", "turns_aware"]
    assert all(row["keep"] is None and row["site"] == "weights" for row in own)
    assert all(row["achieved"] == pytest.approx(2 / 3) for row in own)
