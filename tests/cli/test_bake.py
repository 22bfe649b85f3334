"""`laconic bake` on the command line."""

import pytest
from transformers import AutoModelForCausalLM


def test_bake_and_load(laconic, model, tmp_path):
    out = tmp_path / "half"
    shown = laconic.json("bake", "--model", model, "--method", "magnitude", "--sparsity", "50%", "--out", out)
    assert shown["facts"]["sparsity"] == pytest.approx(0.5, abs=1e-3) and "zeros" in shown["saves"]
    weights = [p for name, p in AutoModelForCausalLM.from_pretrained(out).named_parameters() if "proj" in name]
    assert all(abs(float((p == 0).float().mean()) - 0.5) < 1e-3 for p in weights)
    done = laconic("bake", "--model", out, "--method", "rtn:group=16", "--out", tmp_path / "small")
    assert done.exit_code == 0 and "bits per weight 5" in done.output


@pytest.mark.parametrize("sparsity", ["1", "-0.1", "150%", "nan"])
def test_sparsity_out_of_range(sparsity, laconic, model, tmp_path):
    said = laconic.bad(2, "bake", "--model", model, "--method=magnitude", f"--sparsity={sparsity}", "--out", tmp_path / "x")
    assert "0 <= sparsity < 1" in said and not list(tmp_path.iterdir())


def test_options_that_do_not_go_together(laconic, model, tmp_path):
    both = ["--sparsity=0.5", "--keep=0.5"]
    assert "give one of them" in laconic.bad(2, "bake", "--method=magnitude", *both, "--out", tmp_path / "x")
    assert "exists already" in laconic.bad(2, "bake", "--method=magnitude", "--out", tmp_path)
    assert "did you mean magnitude" in laconic.bad(2, "bake", "--method=magnitud", "--out", tmp_path / "x")
    said = laconic.bad(2, "bake", "--model", model, "--method=snapkv", "--out", tmp_path / "x")
    assert "nothing to save" in said


def test_a_method_for_experts_on_a_dense_model(laconic, model, tmp_path):
    said = laconic.bad(2, "bake", "--model", model, "--method=reap", "--out", tmp_path / "x")
    assert "no mixture of experts" in said and "choose another method" in said and not list(tmp_path.iterdir())


def test_widths_that_the_format_does_not_take(laconic, model, tmp_path):
    said = laconic.bad(2, "bake", "--model", model, "--method=rtn:group=20", "--out", tmp_path / "x")
    assert "group=20 does not divide the 32 inputs" in said and not list(tmp_path.iterdir())
    said = laconic.bad(2, "bake", "--model", model, "--method=magnitude:pattern=1:5", "--out", tmp_path / "x")
    assert "pattern='1:5' needs rows whose length is a multiple of 5" in said and not list(tmp_path.iterdir())
