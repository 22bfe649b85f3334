"""The settings of small GPT-2s that are trained on what codecs make."""

from __future__ import annotations

from transformers import GPT2Config


def small_gpt2(vocabulary: int, places: int, width: int, depth: int, heads: int) -> GPT2Config:
    """A GPT-2 without dropout. The last number of the vocabulary is what a text begins and ends with.

    Weights start with the spread that GPT-2 has at its own width of 768, 0.02, times what the root of the width is smaller:
    with 0.02 itself a narrow one hardly learns what a text before the tokens says.
    """
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=places,
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        initializer_range=0.02 * (768 / width) ** 0.5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )
