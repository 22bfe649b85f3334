"""Which part of the messages a breakpoint cuts off, and of what form it is as a context."""

import pytest

from laconic.serve.config import Config, Model
from laconic.serve.front.chat import chat_ask
from laconic.serve.front.responses import response_ask
from laconic.serve.keys import Key
from laconic.serve.refusal import Refusal

CONFIG = Config(models=(Model("tiny"),))
KEY = Key("alice", "")
SYSTEM, USER, SAID = ({"role": role, "content": role.upper()} for role in ("system", "user", "assistant"))


def part(text, ttl=None, kind="text"):
    return {"type": kind, "text": text, "prompt_cache_breakpoint": {"mode": "explicit", **({"ttl": ttl} if ttl else {})}}


def plain(text):
    return {"type": "text", "text": text}


def asked(*messages, **more):
    return chat_ask({"model": "tiny", "messages": list(messages), **more}, CONFIG, KEY)


@pytest.mark.parametrize(
    ("messages", "text", "system", "turns", "at"),
    [
        ([{"role": "user", "content": [part("ab"), plain("c")]}], "ab", None, [], (0, 2)),
        ([SYSTEM, {"role": "user", "content": [part("ab"), plain("c")]}], "ab", "SYSTEM", [], (1, 2)),
        ([USER, SAID, {"role": "user", "content": [plain("a"), part("b")]}], "ab", None, [USER, SAID], (2, 2)),
        ([USER, SYSTEM, {"role": "user", "content": [part("a")]}], "a", None, [USER, SYSTEM], (2, 1)),
        ([{"role": "developer", "content": [part("ab"), plain("c")]}, USER], None, None, [("system", "ab")], (0, 2)),
        ([USER, {"role": "assistant", "content": [part("a")]}, USER], None, None, [USER, ("assistant", "a")], (1, 1)),
        ([{"role": "user", "content": [part("a"), part("b"), plain("c")]}, SAID, USER], "ab", None, [], (0, 2)),
        ([{"role": "user", "content": [part("a")]}, SAID, {"role": "user", "content": [part("b")]}], "b", None, 2, (2, 1)),
    ],
)
def test_the_last_breakpoint_counts(messages, text, system, turns, at):
    ask = asked(*messages)
    cut = ask.cut
    if turns == 2:
        turns = [("user", "a"), SAID]
    turns = [one if isinstance(one, dict) else {"role": one[0], "content": one[1]} for one in turns]
    assert (cut["text"], cut["system"], cut["messages"]) == (text, system, turns)
    assert (cut["within"]["message"], cut["within"]["at"]) == at
    assert cut["within"]["messages"] == ask.job.messages and ask.job.whole and ask.job.compress is None
    assert all(set(one) == {"role", "content"} for one in ask.job.messages)


def test_instructions_come_before_all():
    item = {"role": "user", "content": [part("a", kind="input_text")]}
    ask, items = response_ask({"model": "tiny", "input": [item], "instructions": "Be brief."}, CONFIG, KEY)
    assert items.breakpoint.message == 1 and (ask.cut["system"], ask.cut["text"]) == ("Be brief.", "a")


@pytest.mark.parametrize(
    ("own", "request_s", "life"),
    [(None, None, 3600), (None, "30m", 1800), ("12h", "30m", 43200), ("12h", None, 43200), ("30m", None, 1800)],
)
def test_a_breakpoint_s_own_life_counts_before_the_request_s(own, request_s, life):
    options = {} if request_s is None else {"prompt_cache_options": {"ttl": request_s}}
    assert asked({"role": "user", "content": [part("a", own)]}, **options).life == life


def test_responses_live_for_twelve_hours_if_they_say_so():
    body = {"model": "tiny", "input": [{"role": "user", "content": [part("a", kind="input_text")]}]}
    ask, _ = response_ask({**body, "prompt_cache_options": {"ttl": "12h"}, "prompt_cache_key": "k"}, CONFIG, KEY)
    assert ask.life == 43200 and ask.cut["salt"] == "k"
    with pytest.raises(Refusal) as caught:
        response_ask({**body, "prompt_cache_options": {"ttl": "24h"}}, CONFIG, KEY)
    assert caught.value.param == "prompt_cache_options.ttl"


def test_no_breakpoint_no_context():
    ask = asked(USER, laconic={"compress": {"method": "keydiff", "keep": 0.5}})
    assert ask.cut is None and not ask.job.whole and ask.job.compress is not None
