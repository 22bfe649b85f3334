"""Ships a checkpoint of the vision testbed: bfloat16 weights, greedy generation settings and the processor.

python -m laconic.testbed.export_vlm runs/vlm src/laconic/testbed/vlm
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from laconic.testbed.evaluate_vlm import NEW_TOKENS

LOADING = ("is_local", "local_files_only")
"""Settings that say only how the tokenizer was loaded."""


def export(checkpoint: Path, folder: Path) -> None:
    """Write model and processor of ``checkpoint`` into ``folder``, without optimizer state and training heads; other files
    there stay as they are.
    """
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16)
    processor = AutoProcessor.from_pretrained(checkpoint)
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
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
