"""A tiny random model with a byte tokenizer: every character beyond ASCII takes several tokens."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from laconic.cli import app, common

SPECIALS = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = "Grüße aus Köln. The code for falcon is 4815263. 🦊 日本語 <b>&amp;</b>\n" * 4


def byte_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """256 bytes and six special tokens; no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(SPECIALS[3:]),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_model(folder: Path, template: str | None = TEMPLATE, positions: int = 2048) -> str:
    """Llama class, three layers, four query heads on two KV heads; sharp enough that eviction changes answers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIALS) + 256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and "embed" not in name:
                p.mul_(4)
    model.save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("plain"), template=None)


@pytest.fixture(scope="session")
def short_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("short"), positions=128)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a busy machine everything takes long enough to be told."""
    monkeypatch.setattr(common, "SILENCE", 600.0)


@pytest.fixture
def context(tmp_path: Path) -> str:
    path = tmp_path / "context.txt"
    path.write_text(CONTEXT, encoding="utf-8")
    return str(path)


class Laconic:
    """`laconic(...)` runs the app in this process."""

    def __call__(self, *args: object, stdin: bytes | None = None):
        return CliRunner().invoke(app, [str(a) for a in args], input=stdin)

    def json(self, *args: object, stdin: bytes | None = None):
        """Exit status 0, and nothing but JSON on stdout."""
        result = self(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def bad(self, code: int, *args: object) -> str:
        """The one line on stderr of a run that fails with `code`; stdout stays empty."""
        result = self(*args)
        assert result.exit_code == code, result.output
        assert result.stdout == ""
        line = result.stderr.strip()
        assert "Traceback" not in line
        if line.startswith("error: "):
            assert "\n" not in line
        return line


@pytest.fixture
def laconic() -> Laconic:
    return Laconic()
