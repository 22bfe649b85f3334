"""`load()`: shipped, local and missing models; padding on the left, a padding token, fp32 on request."""

import threading

import pytest
import torch
from helpers.threads import in_threads
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import laconic
from laconic import UnknownNameError, loading
from laconic.shipped import model_path


@pytest.fixture
def folder(tmp_path, llama):
    """A saved bf16 Llama whose tokenizer has no padding token and pads on the right."""
    vocab = {f"w{i}": i for i in range(96)} | {"</s>": 96}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocab, unk_token="w0")), eos_token="</s>")
    tokenizer.save_pretrained(tmp_path)
    type(llama)(llama.config).to(torch.bfloat16).save_pretrained(tmp_path)
    return tmp_path


def test_local_folder(folder):
    model, tokenizer = laconic.load(str(folder), device="cpu")
    assert not model.training
    assert model.dtype == torch.bfloat16  # what the checkpoint says
    assert tokenizer.padding_side == "left" and tokenizer.pad_token == "</s>"
    assert laconic.load(str(folder), dtype=torch.float32, device="cpu")[0].dtype == torch.float32


def test_a_loaded_model_is_ready_for_a_session(folder):
    model, _ = laconic.load(str(folder), device="cpu")
    with laconic.compress(model, laconic.SnapKV(keep=0.25)) as session:
        model(torch.arange(1, 41)[None])
    assert session.stats.achieved == 0.25


def test_threads_load_at_once(monkeypatch):
    """transformers takes tying away while it loads and gives back what it found: two at once would take it for good."""
    barrier, inside, most = threading.Barrier(3, timeout=60), [], []
    one = AutoModelForCausalLM.from_pretrained

    def from_pretrained(*args, **kwargs):
        inside.append(1)
        most.append(len(inside))
        try:
            return one(*args, **kwargs)
        finally:
            inside.pop()

    def work():
        barrier.wait()
        return laconic.load("testbed/lm", device="cpu")[0]

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    tie_weights = PreTrainedModel.tie_weights
    for model in in_threads(work, work, work):
        assert model.lm_head.weight is model.model.embed_tokens.weight
    assert max(most) == 1
    assert PreTrainedModel.tie_weights is tie_weights


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        laconic.load(str(folder), device="cpu")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("Qwen2VLVideoProcessor requires the Torchvision library but it was not found in your environment."),
        AttributeError("type object 'VIDEO_PROCESSOR_MAPPING' has no attribute '_extra_content'"),
    ],
)
def test_a_processor_without_torchvision_names_the_extra(monkeypatch, error):
    """As transformers puts it, by version."""

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(loading.AutoProcessor, "from_pretrained", fail)
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs torchvision, .* pip install 'laconic-transformers\[vision\]'"):
        laconic.load("testbed/vlm", device="cpu")


def test_other_errors_of_a_processor_stay_what_they_are(monkeypatch):
    def fail(*args, **options):
        raise ValueError("no such processor")

    monkeypatch.setattr(loading.AutoProcessor, "from_pretrained", fail)
    with pytest.raises(ValueError, match="no such processor"):
        laconic.load("testbed/vlm", device="cpu")


def test_missing_folder():
    with pytest.raises(UnknownNameError, match=r"model folder './no/such' does not exist; give a folder, a Hugging Face id"):
        laconic.load("./no/such")


def test_unknown_testbed_model():
    with pytest.raises(UnknownNameError, match=r"^'testbed/ml' is not a testbed model; .*testbed/lm"):
        laconic.load("testbed/ml")


def test_what_is_neither_here_nor_on_the_hub_is_named_beside_what_is_here(folder):
    with pytest.raises(
        UnknownNameError, match=r"^model 'nobody/nothing' is no folder here, .*there are smollm2, .*testbed/lm"
    ):
        laconic.load("nobody/nothing")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="Unrecognized model in"):  # a folder without a model is told as such
        laconic.load(str(folder))


@pytest.mark.skipif(not (model_path("testbed/lm") / "model.safetensors").exists(), reason="the testbed is in training")
def test_testbed():
    model, tokenizer = laconic.load("testbed/lm", device="cpu")
    assert model.dtype == torch.float32
    assert tokenizer.padding_side == "left" and tokenizer.pad_token is not None


def test_vision_language_models_come_with_their_processor(tmp_path):
    """The processor's tokenizer is made ready as a text model's is; the class is the one that sees images."""
    from helpers.vision_tools import random_vlm

    from laconic.loading import tokenizer_of
    from laconic.testbed.vlm_model import build_processor, build_tokenizer

    processor = build_processor(build_tokenizer())
    processor.tokenizer.padding_side = "right"
    random_vlm().to(torch.bfloat16).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, found = laconic.load(str(tmp_path), device="cpu")
    assert type(model).__name__ == "LlavaForConditionalGeneration" and model.dtype == torch.bfloat16 and not model.training
    assert type(found).__name__ == "LlavaProcessor"
    assert tokenizer_of(found) is found.tokenizer and tokenizer_of(found.tokenizer) is found.tokenizer
    assert found.tokenizer.padding_side == "left"


@pytest.mark.parametrize("name", ["smolm2", "smollm", "smollm22"])
def test_a_misspelt_name_is_not_looked_up_on_the_hub(name):
    with pytest.raises(UnknownNameError, match="did you mean smollm2"):
        laconic.load(name)
