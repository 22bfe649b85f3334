"""`load("testbed/lm")` or any Hugging Face id or folder: model and tokenizer (or processor), ready for a session."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
)

from laconic.errors import UnknownNameError
from laconic.families.audio import WHISPER, supported_audio_families
from laconic.families.vision import supported_vision_families
from laconic.one_load import ONE_LOAD
from laconic.pretrained import MODELS as PRETRAINED
from laconic.pretrained import pretrained_path
from laconic.prompts.onevision import MODEL_TYPE as ONEVISION
from laconic.prompts.onevision import load_onevision
from laconic.prompts.reader import tokenizer_of as tokenizer_of
from laconic.shipped import MODELS as SHIPPED
from laconic.shipped import model_path


def load(
    name: str, *, dtype: torch.dtype | str = "auto", device: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, Any]:
    """Load a causal language model and its tokenizer, or a model that sees or hears and its processor.

    Args:
        name: ``"testbed/lm"`` (shipped, offline), ``"smollm2"`` (a real model of 135 M parameters from a package, see
            `laconic.pretrained`; converted once), ``"whisper-tiny-en"`` (likewise; 38 M parameters that write down
            speech), a local folder, or a Hugging Face id.
        dtype: of the weights; "auto" takes what the checkpoint says, fp32 for the testbed on a CPU.
        device: ``"cuda"``, ``"cpu"`` ...; None takes a GPU when there is one.
        trust_remote_code: run code from the checkpoint; off unless you ask for it.

    Threads may load at once; within a process, one waits for the other.

    Returns:
        (model in eval mode, tokenizer). For models of a vision or audio family that laconic knows
        (`supported_vision_families`, `supported_audio_families`) and for Whisper, the processor in place of the tokenizer,
        which is its `tokenizer`.

    Raises:
        UnknownNameError: no such testbed model, or a name that is nearly that of a known one.
        PretrainedError: the package of a pretrained model is not installed; the message holds the command.
        ImportError: the processor needs torchvision, which is not installed.
    """
    path = _path(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("testbed/") and dtype == "auto":
        dtype = torch.float32
    trust = {"trust_remote_code": trust_remote_code}
    options = {"dtype": dtype, "use_safetensors": True, **trust}
    reader = load_reader(name, trust_remote_code=trust_remote_code)
    with ONE_LOAD:
        model = _auto_class(path, trust_remote_code).from_pretrained(path, **options)
    model.to(device)  # type: ignore[arg-type]
    return model.eval(), reader


def load_reader(name: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer, or the processor, that `load` returns with the model called `name`; the model is not loaded."""
    path = _path(name)
    text = _auto_class(path, trust_remote_code) is AutoModelForCausalLM
    trust = {"trust_remote_code": trust_remote_code}
    reader = AutoTokenizer.from_pretrained(path, **trust) if text else _processor(path, trust_remote_code)
    tokenizer = tokenizer_of(reader)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return reader


def _path(name: str) -> str:
    """Where the model called `name` is: a folder, or a Hugging Face id."""
    testbed = name.startswith("testbed/")
    path = str(pretrained_path(name)) if name in PRETRAINED else name
    try:
        path = str(model_path(name)) if testbed else path
    except ValueError as error:
        raise UnknownNameError(str(error)) from None
    if not testbed and name.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise UnknownNameError(f"model folder {name!r} does not exist; give a folder, a Hugging Face id or 'testbed/lm'.")
    near = get_close_matches(name, PRETRAINED, cutoff=0.8)
    if near and name not in PRETRAINED and not Path(path).expanduser().exists():  # before the Hub is asked for it
        raise UnknownNameError(f"no model is called {name!r}; did you mean {near[0]}?")
    return path


def writes_down(name: str, *, trust_remote_code: bool = False) -> bool:
    """Whether the model called `name` writes down speech and takes no text; the model is not loaded."""
    return _auto_class(_path(name), trust_remote_code) is AutoModelForSpeechSeq2Seq


def _processor(path: str, trust_remote_code: bool) -> Any:
    """The processor of a vision language model. Those with a video half cannot be made without torchvision, and transformers
    says so in several ways, by version; LLaVA-OneVision's is then made of other parts, see `laconic.prompts.onevision`."""
    try:
        return AutoProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (ImportError, AttributeError, ValueError) as error:
        if find_spec("torchvision") is not None or not re.search("torchvision|VIDEO_PROCESSOR", str(error), re.IGNORECASE):
            raise
        if _config(path, trust_remote_code).model_type == ONEVISION:
            return load_onevision(path, trust_remote_code=trust_remote_code)
        raise ImportError(
            "its processor needs torchvision, which is not installed; pip install 'laconic-transformers[vision]', in the "
            f"build that belongs to your torch {torch.__version__}."
        ) from error


def _config(path: str, trust_remote_code: bool) -> Any:
    """What a model says of itself.

    Raises:
        UnknownNameError: there is no such folder, and no such model on the Hugging Face Hub, or no network.
    """
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except OSError as error:
        if Path(path).expanduser().exists():
            raise
        why = str(error).strip().splitlines()[0]
        raise UnknownNameError(
            f"model {path!r} is no folder here, and the Hugging Face Hub did not give it ({why}). Without a network there "
            f"are {', '.join([*PRETRAINED, *SHIPPED])}."
        ) from error


def _auto_class(path: str, trust_remote_code: bool) -> Any:
    """The class of transformers that loads the model in `path`, by what it reads."""
    kind = _config(path, trust_remote_code).model_type
    if kind == WHISPER:
        return AutoModelForSpeechSeq2Seq
    for families, loader in (
        (supported_vision_families(), AutoModelForImageTextToText),
        (supported_audio_families(), AutoModelForMultimodalLM),
    ):
        if any(kind in family.model_types for family in families):
            return loader
    return AutoModelForCausalLM
