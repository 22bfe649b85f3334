"""`load("testbed/lm")` or any Hugging Face id or folder: model and tokenizer, ready for a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from laconic.errors import UnknownNameError
from laconic.testbed import model_path


def load(
    name: str, *, dtype: torch.dtype | str = "auto", device: str | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, Any]:
    """Load a causal language model and its tokenizer.

    Args:
        name: ``"testbed/lm"`` (shipped, offline), a local folder, or a Hugging Face id.
        dtype: of the weights; "auto" takes what the checkpoint says, fp32 for the testbed on a CPU.
        device: ``"cuda"``, ``"cpu"`` ...; None takes a GPU when there is one.
        trust_remote_code: run code from the checkpoint; off unless you ask for it.

    Returns:
        (model in eval mode, tokenizer).

    Raises:
        UnknownNameError: no such testbed model.
    """
    testbed = name.startswith("testbed/")
    try:
        path = str(model_path(name)) if testbed else name
    except ValueError as error:
        raise UnknownNameError(str(error)) from None
    if not testbed and name.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise UnknownNameError(f"model folder {name!r} does not exist; give a folder, a Hugging Face id or 'testbed/lm'.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if testbed and dtype == "auto":
        dtype = torch.float32
    options = {"dtype": dtype, "use_safetensors": True, "trust_remote_code": trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(path, **options)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    model.to(device)  # type: ignore[arg-type]
    return model.eval(), tokenizer
