"""results/gpu_decode.json -> results/gpu_decode.md: decode attention on a GPU beside SDPA and the time to read the bytes.

python -m tools.pages.gpu_decode
"""

from __future__ import annotations

import sys

from tools.pages.parts import results, table, write_page

HEAD = ["batch", "tokens", "what", "ms", "bytes / bandwidth, ms", "measured / that", "SDPA / this"]


def page() -> str | None:
    """The whole page; None where nothing has been measured."""
    data = results("gpu_decode")
    if data is None:
        return None
    where = f"on {data['gpu']} (copies {data['gb_per_s']} GB/s)"
    return f"One layer, one decoded token, 32 query and 8 KV heads of 128 {where}.\n\n" + (
        table(HEAD, [list(row.values()) for row in data["rows"]]) + "\n"
    )


if __name__ == "__main__":
    sys.exit(write_page("gpu_decode", page(), "gpu_decode.py"))
