"""What takes long is told where nothing can move on a terminal."""

import time

import pytest

from laconic.cli import common


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "reading 7 [b]tokens ...\n"), (30.0, "")])
def test_a_line_for_what_takes_long(monkeypatch, capsys, seconds, told):
    monkeypatch.setattr(common, "SILENCE", seconds)
    with common.spinner("reading 7 [b]tokens"):
        time.sleep(0.3)
    assert capsys.readouterr().err == told


def test_nothing_is_told_afterwards(monkeypatch, capsys):
    monkeypatch.setattr(common, "SILENCE", 0.2)
    with pytest.raises(ValueError, match="broken"), common.told_late("reading"):
        raise ValueError("broken")
    time.sleep(0.4)
    assert capsys.readouterr().err == ""
