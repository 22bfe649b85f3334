"""Compresses texts with the package ``llmlingua`` 0.2.2, in its own environment; started by `peer_llmlingua.py`.

JSON on stdin, {"model": folder, "texts": [...], "rates": [...]}; JSON on stdout, one list of shortened texts for each text.
"""

import json
import sys
from types import SimpleNamespace

import tiktoken

tiktoken.encoding_for_model = lambda name: SimpleNamespace(
    encode=str.split
)  # fetched from the network; for its own counts only

from llmlingua import PromptCompressor  # noqa: E402 (after the line above)

given = json.load(sys.stdin)
compressor = PromptCompressor(given["model"], device_map="cpu", model_config={"trust_remote_code": False})
found = [
    [
        compressor.compress_prompt([text], rate=rate, use_context_level_filter=False, iterative_size=200)[
            "compressed_prompt"
        ]
        for rate in given["rates"]
    ]
    for text in given["texts"]
]
print(json.dumps(found))
