"""Quick start: one question about a long text, answered from a tenth of the cache.

Run: python examples/quick_start.py
"""

from pathlib import Path

import torch

import laconic
from laconic.prompts import text

NOTE = Path(__file__).with_name("note.txt")
QUESTION = "What is the code for falcon?"


def main() -> None:
    model, tokenizer = laconic.load("testbed/lm")  # or a Hugging Face id or folder of a supported family
    prompt = text.build(tokenizer, NOTE.read_text(encoding="utf-8"), QUESTION)  # the model's own chat template
    ids = torch.tensor([prompt.ids])

    with laconic.compress(model, laconic.SnapKV(keep=0.1)) as session:
        output = model.generate(ids, max_new_tokens=24)

    print(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    print(f"{session.stats.kv_bytes:,} of {session.stats.kv_bytes_full:,} bytes of cache for {len(prompt.ids):,} tokens")


if __name__ == "__main__":
    main()
