"""Ships a training checkpoint: bfloat16 weights, greedy generation settings, and the tokenizer or processor.

python -m laconic.testbed.export runs/lm src/laconic/testbed/lm
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoTokenizer,
    GenerationConfig,
)

from laconic.loading import load_reader
from laconic.tasks.audio.tasks import NEW_TOKENS as SPOKEN
from laconic.testbed.evaluate_vlm import NEW_TOKENS

LOADING = ("is_local", "local_files_only")
"""Settings that say only how the tokenizer was loaded."""


def export(checkpoint: Path, folder: Path) -> None:
    """Write the model of ``checkpoint`` and its tokenizer or processor into ``folder``, without what belongs to the
    training; other files there stay as they are.
    """
    config = AutoConfig.from_pretrained(checkpoint)
    sees, hears = (hasattr(config, f"{kind}_config") for kind in ("vision", "audio"))
    model_class: Any = AutoModelForImageTextToText if sees else AutoModelForMultimodalLM if hears else AutoModelForCausalLM
    model = model_class.from_pretrained(checkpoint, dtype=torch.bfloat16)
    media = sees or hears
    writer: Any = load_reader(str(checkpoint)) if media else AutoTokenizer.from_pretrained(checkpoint)
    tokenizer = writer.tokenizer if media else writer
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS if sees else SPOKEN if hears else 64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    writer.save_pretrained(folder, **({} if media else {"save_jinja_files": False}))
    settings = folder / "tokenizer_config.json"
    kept = {key: value for key, value in json.loads(settings.read_text()).items() if key not in LOADING}
    settings.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    export(args.checkpoint, args.folder)


if __name__ == "__main__":
    main()
