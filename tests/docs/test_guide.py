"""The guide's Python runs as it is printed, block after block, on the models that ship."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guide.md"


@pytest.mark.slow
def test_its_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in ("examples/note.txt", "docs/scene.png"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    text = GUIDE.read_text(encoding="utf-8")
    for block in re.finditer(r"```python\n(.*?)```", text, flags=re.S):
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], str(GUIDE), "exec"), known)
    printed = capsys.readouterr().out
    # two questions and a follow-up of a context in memory, one of a file, two of a loop of one's own, one about an image
    assert re.findall(r"4815263|9052316|\bHET\b", printed) == [
        *("4815263", "9052316", "4815263"),
        "9052316",
        *("4815263", "9052316"),
        "HET",
    ]
