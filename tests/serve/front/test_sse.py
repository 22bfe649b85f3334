"""Streams: comments while nothing comes, errors before and after the beginning, and an end wherever the client leaves."""

import asyncio

import pytest

from laconic.serve.front.sse import KEEP_ALIVE, Beginning, Streamed, data
from laconic.serve.refusal import Refusal

OOPS = Refusal(503, "disk_full", "the store has no space left.")


def told(refusal):
    return [refusal.code.encode()]


async def source(*steps):
    """Pieces; a number is waited for, an error raised."""
    for step in steps:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
        else:
            yield step


async def taken(*steps, patience=0.05, keep_alive=0.05):
    stream = Beginning(source(*steps), told, patience, keep_alive)
    await stream.begin()
    found = [piece async for piece in stream.rest()]
    await stream.close()
    return found, stream.complete


def test_pieces_with_comments_between_those_that_take_long():
    found, complete = asyncio.run(taken(b"a", 0.13, b"b"))
    assert found == [b"a", KEEP_ALIVE, KEEP_ALIVE, b"b"] and complete


def test_an_error_before_the_beginning_is_raised_and_a_later_one_is_told():
    with pytest.raises(Refusal):
        asyncio.run(taken(OOPS))
    assert asyncio.run(taken(b"a", OOPS)) == ([b"a", b"disk_full"], True)
    found, complete = asyncio.run(taken(0.12, OOPS))
    assert found[-1] == b"disk_full" and set(found[:-1]) == {KEEP_ALIVE} and complete


def test_closing_it_early_ends_the_source():
    async def run():
        ended = []

        async def long():
            try:
                yield b"a"
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        stream = Beginning(long(), told, 1.0, 0.05)
        await stream.begin()
        rest = stream.rest()
        assert [await anext(rest), await anext(rest)] == [b"a", KEEP_ALIVE]
        await stream.close()
        return ended, stream.complete

    assert asyncio.run(run()) == ([True], False)


@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_a_client_that_is_gone_before_the_first_piece_ends_it_too(version):
    async def run():
        over = []

        async def send(message):
            raise OSError("gone")

        async def receive():
            return {"type": "http.disconnect"}

        async def end():
            over.append(True)

        response = Streamed(source(b"a"), end)
        try:
            await response({"type": "http", "asgi": {"spec_version": version}}, receive, send)
        except BaseException as error:
            over.append(type(error).__name__ != "AssertionError")
        return over[0]

    assert asyncio.run(run())


def test_an_event():
    assert data({"a": "\u00e4"}, "x") == 'event: x\ndata: {"a":"\u00e4"}\n\n'.encode()
