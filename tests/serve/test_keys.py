"""Keys: found by their hash alone, in a file that nobody else may read."""

import hmac

import pytest

from laconic.serve.config import ConfigError
from laconic.serve.keys import Key, KeyRing, add_key, hash_of


def test_a_key_is_shown_once_and_found_again(tmp_path):
    path = tmp_path / "keys"
    alice, boss = add_key(path, "alice"), add_key(path, "boss", admin=True)
    ring = KeyRing(path)
    assert ring.find(alice) == Key("alice") and ring.find(boss) == Key("boss", admin=True)
    assert ring.find(alice + "x") is None and ring.find("") is None
    assert alice not in path.read_text() and path.stat().st_mode & 0o777 == 0o600


def test_every_entry_is_compared_whatever_comes(tmp_path, monkeypatch):
    path = tmp_path / "keys"
    tokens = [add_key(path, f"key{i}") for i in range(3)]
    ring, compared = KeyRing(path), []

    def counting(a, b):
        compared.append(b)
        return a == b

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for token in (*tokens, "wrong"):
        compared.clear()
        ring.find(token)
        assert len(compared) == 3


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("a:b\n", 0o600, "line 1"),
        (f"a:{hash_of('x')}:root\n", 0o600, "line 1"),
        (f"# c\n\na/b:{hash_of('x')}\n", 0o600, "line 3"),
        ("", 0o600, "holds no key"),
        (f"a:{hash_of('x')}\n", 0o644, "chmod 600"),
    ],
)
def test_other_files_are_refused(tmp_path, text, mode, says):
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=says):
        KeyRing(path)


def test_a_missing_file_and_a_bad_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        KeyRing(tmp_path / "none")
    with pytest.raises(ConfigError, match="key name"):
        add_key(tmp_path / "keys", "a:b")
