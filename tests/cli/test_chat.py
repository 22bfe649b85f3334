"""`laconic chat`: lines in, answers out; commands; a conversation that survives Ctrl-C and bad questions."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

KEYS = {
    "question", "answer", "finish", "tokens_out", "tokens_seen", "kv_bytes", "kv_bytes_full", "first_seconds",
    "seconds_per_token",
}  # fmt: skip
ENTRY = 3 * 2 * (8 + 8) * 4  # bytes of a token: layers, KV heads, key and value channels, fp32


def lines(*texts):
    return "\n".join((*texts, "")).encode()


def answers(laconic, *args, stdin):
    result = laconic("chat", *args, "--max-new-tokens", 5, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_first_answer_is_that_of_run_and_later_ones_know_it(laconic, model, context):
    common = "--model", model, "--method", "random", "--keep", 0.5, "--context", context
    first, second = answers(laconic, *common, stdin=lines("Wo?", "", "Und 🦊?"))
    asked = laconic.json("run", *common, "--later", "-q", "Wo?", "--max-new-tokens", 5)
    assert set(first) == set(second) == KEYS and [first["question"], second["question"]] == ["Wo?", "Und 🦊?"]
    assert first["answer"] == asked["answer"] and first["kv_bytes"] == asked["kv_bytes_end"]
    more = second["tokens_seen"] - first["tokens_seen"]  # stored whole
    assert more > 0 and second["kv_bytes"] - first["kv_bytes"] == more * ENTRY
    assert second["kv_bytes_full"] == second["tokens_seen"] * ENTRY


def test_reset_begins_anew_and_quit_ends(laconic, model, context):
    common = "--model", model, "--method", "random", "--keep", 0.5, "--context", context
    found = answers(laconic, *common, stdin=lines("Wo?", "Und?", "/reset", "Wo?", "/quit", "Nie?"))
    assert [x["question"] for x in found] == ["Wo?", "Und?", "Wo?"]
    assert found[0]["answer"] == found[2]["answer"] and found[0]["kv_bytes"] == found[2]["kv_bytes"]


def test_text_output_holds_answers_and_figures_only(laconic, model, context):
    args = "--model", model, "--method", "random", "--keep", 0.5, "--context", context, "--max-new-tokens", 5
    result = laconic("chat", *args, stdin=lines("/stats", "Wo?", "/stats", "/foo", "/help"))
    assert result.exit_code == 0, result.output
    (found,) = answers(laconic, *args[:-2], stdin=lines("Wo?"))
    assert found["answer"] in result.stdout and "none yet" in result.stdout
    assert (
        f"{found['tokens_seen']:,.0f} seen" in result.stdout
        and f"({found['kv_bytes'] / found['kv_bytes_full']:.1%})" in result.stdout
    )
    assert "> " not in result.stdout and "/foo is no command" in result.stderr and result.stdout.count("/quit") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--context", "-"), "stdin holds the questions"),
        (("--compress-turns",), "--compress-turns needs a --method"),
        (("--keep", "0.5"), "--keep needs a --method"),
        (("--method", "random", "--keep", "0.5", "--context", "missing.txt"), "cannot read --context"),
    ],
)
def test_what_cannot_be_talked_about(laconic, model, args, message):
    assert message in laconic.bad(2, "chat", "--model", model, *args)


def test_a_model_without_a_chat_template_answers_once(laconic, plain_model, context):
    result = laconic("chat", "--model", plain_model, "--context", context, "--max-new-tokens", 3, stdin=lines("Wo?", "Und?"))
    assert result.exit_code == 2 and "no chat template" in result.stderr and result.stdout.strip()


def test_a_conversation_longer_than_the_positions_is_warned_about(laconic, short_model):
    result = laconic("chat", "--model", short_model, "--max-new-tokens", 30, stdin=lines("Wie geht es dir?" * 6))
    assert result.exit_code == 0 and "128 positions" in result.stderr


@pytest.mark.slow
def test_on_a_terminal_control_c_stops_the_answer_and_control_d_ends(model, context):
    """In a process of its own on a pseudo terminal."""
    controller, terminal = pty.openpty()
    command = "chat", "--model", model, "--context", context, "--max-new-tokens", "1500"
    process = subprocess.Popen(
        [sys.executable, "-m", "laconic.cli", *command],
        stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = ""

    def until(text):
        nonlocal shown
        end = time.monotonic() + 120
        while text not in shown:
            assert time.monotonic() < end, shown
            shown += os.read(controller, 4096).decode(errors="replace")
        before, shown = shown.split(text, 1)
        return before

    try:
        until("> ")
        os.write(controller, b"Wo?\n")
        time.sleep(0.2)
        until("\n")
        os.read(controller, 1)  # the answer has begun
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in until("[stopped]")
        until("> ")  # what is typed before the prompt may get lost when the terminal changes its mode
        os.write(controller, b"/stats\n")
        assert "answers            1" in until("seen")
        until("> ")
        os.write(controller, b"\x04")
        with suppress(OSError):  # the terminal is gone
            while os.read(controller, 4096):
                pass
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        os.close(controller)
