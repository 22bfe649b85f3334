"""`laconic inspect --lens NAME` without an image."""

import json

TEXT = "The cat sat on the mat. A dog ran to the cat! Did the mat fly? No. The dog saw a bird on the mat. " * 3
NAME = "visual_language_statistics"


def test_a_text_is_looked_at(laconic, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    told = laconic.json("inspect", "--lens", NAME, "--context", tmp_path / "text.txt", "-o", tmp_path / "found.json")
    assert told["corpora"]["text"]["types"] == 14 and json.loads((tmp_path / "found.json").read_text()) == told
    shown = laconic("inspect", "--lens", NAME, "--context", tmp_path / "text.txt").stdout
    assert "corpora text types  14" in shown


def test_what_cannot_be_looked_at_is_one_line(laconic, tmp_path):
    assert "give codes=FOLDER" in laconic.bad(2, "inspect", "--lens", NAME)
    assert "holds no files" in laconic.bad(2, "inspect", "--lens", f"{NAME}:codes={tmp_path}")
    assert "--lens embedlens is about images; give --image" in laconic.bad(2, "inspect", "--lens", "embedlens")
    assert "no parameter" in laconic.bad(2, "inspect", "--lens", f"{NAME}:size=3")
