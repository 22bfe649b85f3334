"""`laconic run --cache` and `laconic cache info`: compress once, ask often, from the command line."""

from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "notes.context")


def test_a_context_is_compressed_once_and_asked_twice(laconic, model, context, file):
    options = ["--model", model, "--max-new-tokens", 5, "--cache", file]
    first = laconic.json("run", *options, "--method", "knorm", "--keep", 0.25, "--context", context, "-q", "Wo? 🦊")
    written = Path(file).read_bytes()
    plain = laconic.json(
        "run", "--model", model, "--max-new-tokens", 5, "--method", "knorm", "--keep", 0.25, "--context", context,
        "-q", "Wo? 🦊", "--later",
    )  # fmt: skip
    again = laconic.json("run", *options, "-q", "Wo? 🦊")
    other = laconic.json("run", *options, "-q", "Wer?")
    assert first["answer"] == plain["answer"] == again["answer"]
    assert again["mode"] == "later" and again["methods"][0]["name"] == "knorm"
    assert again["achieved"] == first["achieved"] == plain["achieved"] and again["kv_bytes"] == plain["kv_bytes"]
    assert again["prefill_flops"] < 0.5 * plain["prefill_flops"]  # the context was not read again
    assert other["prompt"]["context_tokens"] == again["prompt"]["context_tokens"]
    assert Path(file).read_bytes() == written
    laconic.json("run", *options, "--context", context, "-q", "Wo?")  # the same context beside the file is fine


def test_the_panel_says_that_the_context_is_not_in_the_figures(laconic, model, context, file):
    options = ["run", "--model", model, "--max-new-tokens", 1, "--cache", file, "-q", "Wo?"]
    shown = [laconic(*options, *more).stdout for more in (("--method", "knorm", "--context", context), ())]
    first, again = (" ".join(text.replace("│", " ").split()) for text in shown)
    assert "context read in " in first and "kept in" in first and "prefill below is that of the question" in first
    assert "context from" in again and "prefill below is that of the question" in again


def test_info_describes_the_file(laconic, model, context, file):
    laconic.json(
        "run", "--model", model, "--max-new-tokens", 1, "--cache", file, "--method", "snapkv:window=4", "--keep", 0.25,
        "--context", context, "-q", "?",
    )  # fmt: skip
    facts = laconic.json("cache", "info", file)
    assert facts["methods"][0]["name"] == "snapkv" and facts["methods"][0]["arguments"]["keep"] == 0.25
    assert facts["tokens"] == facts["real"][0] and facts["model"] == Path(model).name
    shown = laconic("cache", "info", file).stdout
    assert "snapkv(" in shown and f"{facts['tokens']:,} seen" in shown and "dense" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--cache needs a --question"),
        (["-q", "Wo?"], "does not exist yet; give the --context"),
        (["-q", "Wo?", "--context", "CONTEXT", "--method", "nope"], "unknown method 'nope'"),
    ],
)
def test_bad_requests(laconic, model, context, file, options, message):
    options = [context if option == "CONTEXT" else option for option in options]
    assert message in laconic.bad(2, "run", "--model", model, "--cache", file, *options)
    assert not Path(file).exists()


def test_a_file_says_itself_how_it_was_made(laconic, model, context, file, tmp_path):
    options = ["--model", model, "--max-new-tokens", 1, "--cache", file, "-q", "Wo?"]
    laconic.json("run", *options, "--method", "knorm", "--keep", 0.25, "--context", context)
    assert "drop --method" in laconic.bad(2, "run", *options, "--method", "knorm")
    (tmp_path / "other.txt").write_text("something else", encoding="utf-8")
    assert "holds another text" in laconic.bad(2, "run", *options, "--context", tmp_path / "other.txt")
    Path(file).write_bytes(Path(file).read_bytes()[:-2])
    assert "truncated" in laconic.bad(2, "run", *options)
    assert "truncated" in laconic.bad(2, "cache", "info", file)
