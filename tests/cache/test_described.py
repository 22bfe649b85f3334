"""Every method of the catalogue comes back from JSON as it was, whatever its parameters are."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

import laconic
from laconic.cache.described import arguments, described, rebuilt
from laconic.errors import SavedContextError

ENTRIES = [entry for entry in laconic.list_methods() if entry.cls.__module__.startswith("laconic.")]


def through_json(method):
    return rebuilt(json.loads(json.dumps(described(method))))


def others(hint, default):
    """Values that a parameter may have beside its default; the method refuses those that do not suit it."""
    if hint.startswith("Literal"):
        return re.findall(r"[\"'](.+?)[\"']", hint)
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1, default + 2, 2 * default, default // 2, 8, 4, 0]
    if isinstance(default, float):
        return [0.9 * default, 0.5, default + 1]
    if isinstance(default, tuple):
        return [(3,), (3, 4), (2, 1, 0), tuple(x + 1 for x in default)]
    found = [None] if default is not None else []
    return [*found, "gather", "renumber", "L0H1", "a.safetensors", 4, 0.5, [[0, 1]], ((0, 1), (2,)), Path("a.safetensors")]


def variants(entry):
    """The method with its defaults, and with one parameter at a time that is not its default."""
    yield entry.cls()
    for f in dataclasses.fields(entry.cls):
        if not f.init or f.name == "protect":
            continue
        default = getattr(entry.cls(), f.name)
        for value in others(f.type, default):
            try:
                made = entry.cls(**{f.name: value})
            except (ValueError, TypeError, AttributeError, laconic.LaconicError):
                continue
            if getattr(made, f.name) != default:
                yield made


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_parameter_comes_back_as_it_was(entry):
    made = list(variants(entry))
    assert len(made) > 1
    for method in made:
        again = through_json(method)
        assert again == method, str(method)
        for f in dataclasses.fields(method):
            assert type(getattr(again, f.name)) is type(getattr(method, f.name)), f"{method}: {f.name}"
        assert str(again) == str(method)


def test_tuples_methods_and_paths_inside_each_other():
    fixed = laconic.DapQ(content="fixed", fixed_ids=(3, 4, 5), tokens=7)
    assert through_json(fixed) == fixed and through_json(fixed).fixed_ids == (3, 4, 5)
    nested = laconic.AdaKV(scorer=laconic.SnapKV(window=7, keep=0.3), keep=0.2)
    assert through_json(nested) == nested
    path = laconic.FastKV(artifact=Path("a/b.safetensors"))
    assert through_json(path).artifact == Path("a/b.safetensors")
    assert arguments(json.loads(json.dumps(described(fixed))))["fixed_ids"] == (3, 4, 5)


def test_what_json_cannot_give_back_is_refused_by_name():
    method = laconic.DapQ()
    method.prefix = {1, 2}
    with pytest.raises(SavedContextError, match=r"dapq: prefix=\{1, 2\} cannot be written"):
        described(method)
