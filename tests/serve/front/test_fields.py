"""Fields are read strictly: what nobody reads is an error, and a value of another kind is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.serve.front.bodies import parsed
from laconic.serve.front.fields import Fields
from laconic.serve.refusal import Refusal


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda f: f.text("x"), 3),
        (lambda f: f.number("x", 0, 1, 0.5), 2),
        (lambda f: f.number("x", 0, 1, 0.5), True),
        (lambda f: f.number("x", 0, 1, 0.5), "0.5"),
        (lambda f: f.whole("x", 0, 5), 1.0),
        (lambda f: f.whole("x", 0, 5), 6),
        (lambda f: f.whole("x", 0, 5), False),
        (lambda f: f.flag("x"), 1),
        (lambda f: f.one_of("x", ["a"]), "b"),
        (lambda f: f.one_of("x", ["a"]), ["a"]),
        (lambda f: f.inner("x"), []),
        (lambda f: f.labels("x"), {"a": 1}),
        (lambda f: f.labels("x"), {str(i): "" for i in range(17)}),
    ],
)
def test_values_of_another_kind_are_refused(read, value):
    with pytest.raises(Refusal) as caught:
        read(Fields({"x": value}, "outer"))
    assert (caught.value.code, caught.value.param) == ("invalid_value", "outer.x")


def test_what_nobody_read_is_an_error_or_named():
    fields = Fields({"temperature": 1, "temprature": 1})
    fields.raw("temperature")
    assert fields.rest(lenient=True) == ["temprature"]
    with pytest.raises(Refusal, match="did you mean temperature"):
        fields.rest()


def test_a_field_that_asks_for_nothing_is_no_request():
    fields = Fields({"tools": [], "tool_choice": "none", "audio": None})
    fields.refuse({"tools": [], "tool_choice": "none", "audio": None})
    assert fields.rest() == []
    with pytest.raises(Refusal) as caught:
        Fields({"tools": [1]}).refuse({"tools": []})
    assert caught.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"[]",
            b"3",
            b"{",
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b"\xff{}",
            b'{"a": ' + b"9" * 5000 + b"}",
            b'{"a": 1e999}',
        ),
        *(b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": ' + b"[" * 80 + b"]" * 80 + b"}", b"[" * 100_000),
    ],
)
def test_bad_bodies(body):
    with pytest.raises(Refusal) as caught:
        parsed(body)
    assert caught.value.status == 400 and caught.value.code in ("invalid_json", "invalid_value")


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(body):
    try:
        assert isinstance(parsed(body), dict)
    except Refusal as refusal:
        assert refusal.status == 400
