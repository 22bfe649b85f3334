"""`laconic compress`: a shorter text on stdout, figures on stderr."""

import pytest

from laconic.cli.compress import figures
from laconic.shortening.shorten import Shortened

TEXT = "Notes of the meeting. The code for falcon is 4815263. Rain is likely, and Ada said nothing new about it. " * 4


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_text_goes_to_stdout_and_figures_to_stderr(laconic, file):
    done = laconic("compress", file, "--keep", "25%", "--method", "truncate_text")
    assert TEXT.startswith(done.stdout.rstrip()) and done.stdout.endswith("\n")
    assert "truncate_text: 80 -> 20 words (25.0%, asked 25.0%)" in done.stderr


def test_stdin_and_a_file_for_the_text(laconic, tmp_path):
    target = tmp_path / "short.txt"
    done = laconic("compress", "-", "--keep", "0.25", "--method", "truncate_text", "-o", target, stdin=TEXT.encode())
    assert done.stdout == "" and TEXT.startswith(target.read_text(encoding="utf-8")) and "80 -> 20" in done.stderr


def test_json_has_all_figures(laconic, file, model):
    found = laconic.json(
        "compress", file, "--tokens", 90, "--method", f"llmlingua:scorer={model}", "-m", model,
        "--protect", "Rain is", "--force", "falcon",
    )  # fmt: skip
    assert found["unit"] == "tokens" and found["tokens_in"] == len(TEXT.encode()) and 80 <= found["tokens_out"] <= 90
    assert found["scorer_tokens"] == [found["tokens_in"], found["tokens_out"]] and found["flops"] > 0
    assert found["text"].count("Rain is") == found["text"].count("falcon") == 4
    assert len(found["kept"]) < found["pieces"] and found["method"] == "llmlingua"


def test_run_answers_from_a_shortened_context(laconic, file, model):
    options = ["--model", model, "--context", file, "-q", "Who?", "--max-new-tokens", 3]
    spec = f"llmlingua:scorer={model}"
    found = laconic.json("run", *options, "--method", spec, "--keep", 0.25, "--protect", "Ada said", "--compare")
    plain = laconic.json("run", *options)
    assert found["asked"] == 0.25 and abs(found["achieved"] - 0.25) < 0.01
    assert found["prompt"]["context_tokens"] < 0.3 * plain["prompt"]["context_tokens"]
    assert found["kv_bytes_full"] == pytest.approx(plain["kv_bytes_full"], rel=0.01)
    assert found["compared"]["kv_bytes"] == plain["kv_bytes"] and found["compared"]["answer"] == plain["answer"]
    assert found["prefill_flops"] > found["compared"]["prefill_flops"] / 4 and found["compress_seconds"] > 0
    shown = " ".join(laconic("run", *options, "--method", spec, "--keep", 0.25).stdout.replace("│", " ").split())
    assert "of the context" in shown and "llmlingua: 420 -> 105 tokens" in shown and "the model read it" in shown


def test_a_saved_context_is_of_the_shortened_text(laconic, file, model, tmp_path):
    options = ["--model", model, "--cache", tmp_path / "c", "-q", "Who?", "--max-new-tokens", 3]
    first = laconic.json("run", *options, "--context", file, "--method", "truncate_text", "--keep", 0.25)
    again = laconic.json("run", *options)
    assert first["answer"] == again["answer"] and again["prompt"] == first["prompt"]


def test_documents_a_question_and_tags(laconic, tmp_path, file):
    other = tmp_path / "other.txt"
    other.write_text("The piano is in the cellar. Nobody plays it.", encoding="utf-8")
    done = laconic("compress", file, other, "--keep", "0.12", "--method", "bm25:chunk=8", "-q", "Where is the piano?")
    assert "The piano is in the cellar." in done.stdout
    tagged = laconic(
        "compress", "--method", "truncate_text", "--keep", "0.5", "--tags", "x", stdin=b"<x, compress=False>a b</x> c d"
    )
    assert tagged.stdout == "a b c\n"


def test_nothing_is_named_and_one_method_is_taken(laconic, model, monkeypatch):
    from laconic.methods import LLMLingua
    from laconic.shortening.scorer import Scorer

    monkeypatch.setattr(LLMLingua, "opened", lambda self: Scorer.of(model))
    done = laconic("compress", stdin=TEXT.encode())
    assert "llmlingua: " in done.stderr and "asked 50.0%" in done.stderr


@pytest.mark.parametrize(
    ("options", "given", "message"),
    [
        (["no-such-file"], "", "cannot read FILE no-such-file"),
        (["--method", "truncate_text"], " \n", "there is nothing to shorten"),
        (["--method", "truncate_text"], b"\xff\x00binary", "stdin is not UTF-8: byte 0xff at offset 0"),
        (["--method", "truncate_text"], "text".encode("utf-16"), "stdin is UTF-16"),
        (["--keep", "0.5", "--tokens", "3"], TEXT, "exclude each other"),
        (["--keep", "much"], TEXT, "'much' is no share"),
        (["--keep", "0", "--method", "truncate_text"], TEXT, "keep=0.0 is out of range"),
        (["--method", "snapkv"], TEXT, "--method snapkv does not shorten text"),
        (["--method", "lingua"], TEXT, "unknown method 'lingua'"),
        (["--method", "bm25"], TEXT, "bm25 needs the question"),
        (["--protect", "nowhere", "--method", "truncate_text"], TEXT, "this string is not in the text"),
        (["-o", "no/such/folder/x"], TEXT, "give a file in a folder that exists"),
        (["--method", "truncate_text", "--tags", "x"], "<x>open", "never closed"),
    ],
)
def test_bad_input(laconic, options, given, message):
    done = laconic("compress", *options, stdin=given if isinstance(given, bytes) else given.encode())
    assert done.exit_code == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize("text", ["word", "one two", "日本語", "🦊"])
def test_very_short_texts(laconic, model, text):
    found = laconic.json("compress", "--method", f"llmlingua:scorer={model}", "--keep", "0.1", stdin=text.encode())
    assert 1 <= found["tokens_out"] <= len(text.encode()) and found["text"]


def test_figures_of_two_tokenizers():
    done = Shortened("x", ("a", "b"), (0,), 0.5, "tokens", 4, 2, (6, 3), "scorer", 9, 1.0)
    assert figures(done).startswith(
        "x: 4 -> 2 tokens (50.0%, asked 50.0%), 6 -> 3 by the tokenizer of scorer, scored by scorer"
    )


def test_inspect_shows_a_text_beside_what_was_kept(laconic, file, model, tmp_path):
    page = tmp_path / "page.html"
    options = ["--model", model, "--context", file, "-q", "Who?", "--max-new-tokens", 2, "--method", "truncate_text"]
    found = laconic.json("inspect", *options, "--keep", 0.25, "-o", page)
    ((done,),) = [found["shortened"]]
    assert "".join(done["pieces"]) == TEXT and done["kept"] == list(range(20))
    html = page.read_text(encoding="utf-8")
    assert "420 -&gt; " in html and html.count("<del>") == 1 and "<h3>after</h3>" in html
    assert laconic.json("inspect", *options[:8])["shortened"] == []
