"""The options that commands share: declared once, checked at once."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from laconic.cli.common import InputError
from laconic.cli.options import Json, Options, bytes_of, model_for_own_documents, ray_address, with_options
from laconic.pretrained import PretrainedError


@pytest.fixture
def called():
    """`called(args)` runs a small command and gives what it was given."""
    given = []
    app = typer.Typer()

    @app.command()
    @with_options
    def toy(
        options: Options,
        keep: Annotated[str | None, typer.Option("--keep", help="Not the shared one.")] = None,
        extra: Annotated[int, typer.Option("--extra", help="Its own.")] = 3,
        as_json: Json = False,
    ) -> None:
        """What the command does."""
        given.append((options, keep, extra, as_json))

    def run(*args):
        result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200"})
        return result, given[-1] if given else None

    return run


def test_a_command_takes_the_shared_options_and_its_own(called):
    _, (options, keep, extra, as_json) = called(
        "--method", "knorm", "--method", "kivi:bits=4", "--keep", "x", "-q", "Why?", "--extra", "5", "--json",
        "--temperature", "2",
    )  # fmt: skip
    assert options.method == ["knorm", "kivi:bits=4"] and options.question == "Why?" and options.max_new_tokens == 64
    assert options.sample and options.temperature == 2.0
    assert (keep, extra, as_json) == ("x", 5, True)
    assert options.keep is None  # the command declares one itself


def test_help_has_every_option_once_in_their_order(called):
    shown = called("--help")[0].output
    assert "What the command does." in shown and "Not the shared one." in shown and "Share of the tokens kept" not in shown
    places = [shown.index(f" {name} ") for name in ("--model", "--keep", "--question", "--seed", "--extra", "--json")]
    assert places == sorted(places) and all(shown.count(f"{name} ") == 1 for name in ("--keep", "--extra", "--device"))


def test_defaults_are_those_of_the_fields(called):
    assert called()[1] == (Options(), None, 3, False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep": 0.5}, "--keep needs a --method"),
        ({"keep": 0.5, "nbytes": 3, "method": ["knorm"]}, "--keep and --bytes exclude each other"),
        ({"dtype": "int3"}, "--dtype int3: choose one of auto"),
        ({"temperature": float("inf")}, "--temperature inf must be above 0"),
        ({"later": True}, "give --context"),
        ({"frames": 3}, "--frames 3 are those of a --video"),
        ({"image": ["a.png"], "prefill_chunk_size": 3}, "does not go with images"),
    ],
)
def test_what_does_not_go_together_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        Options(**given)


def test_a_share_that_is_set_later_is_checked_too():
    options = Options()
    options.set_keep(None)
    with pytest.raises(InputError, match="--keep needs a --method"):
        options.set_keep(0.5)
    with pytest.raises(InputError, match="exclude each other"):
        Options(tokens=3, method=["knorm"]).set_keep(0.5)


def test_the_model_follows_what_is_shown():
    assert Options().model_name == "testbed/lm"
    assert Options(image=["a.png"]).model_name == Options(image=["a.png"], video="b.mp4").model_name == "testbed/vlm"
    assert Options(video="b.mp4").model_name == "testbed/video"
    assert Options(video="b.mp4", as_images=True).model_name == "testbed/vlm"
    assert Options(image=["a.png"], model="m").model_name == "m"


def test_the_text_of_a_prompt(tmp_path):
    (tmp_path / "a.txt").write_text("Köln", encoding="utf-8")
    assert Options(context=str(tmp_path / "a.txt")).text() == "Köln" and Options(question="Wo?").text() == ""
    with pytest.raises(InputError, match="prompt is empty"):
        Options(question=" ").text()


def test_a_share_may_be_a_percentage(called):
    @with_options
    def command(options):
        assert options.keep == 0.1

    for text, ok in (("0.1", True), ("10%", True), ("ten", False)):
        app = typer.Typer()
        app.command()(command)
        done = CliRunner().invoke(app, ["--method", "knorm", "--keep", text])
        assert (done.exception is None) == ok
    assert "'ten' is no share; write 0.1 or 10%" in done.output


@pytest.mark.parametrize(
    ("text", "n"),
    [("0", 0), ("12", 12), ("12 B", 12), ("2GB", 2e9), ("1.5 GiB", 3 * 2**29), ("3kb", 3000), ("1TiB", 2**40)],
)
def test_bytes_on_the_command_line(text, n):
    assert bytes_of(text) == n


@pytest.mark.parametrize("text", ["", "-1", "GB", "1 PB", "1.2.3", "1 G", "nan"])
def test_what_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(typer.BadParameter, match="write 2000000, 2GB or 500MiB"):
        bytes_of(text)


def test_the_old_name_of_later_says_the_new_one():
    options = Options(context="notes.txt", query_agnostic=True)
    assert options.later and options.warnings == [
        "--query-agnostic is now called --later; the old name goes with laconic 0.3."
    ]
    assert not Options(context="notes.txt").later


def test_own_documents_go_to_a_real_model_where_it_is_installed(monkeypatch, capsys):
    monkeypatch.setattr("laconic.pretrained.ready", lambda name: f"{name} is here")
    assert model_for_own_documents() == "smollm2" and capsys.readouterr().err == ""

    def missing(name):
        raise PretrainedError(f"{name} is not installed.")

    monkeypatch.setattr("laconic.pretrained.ready", missing)
    assert model_for_own_documents() == "testbed/lm"
    assert "answers about other texts are noise; name a --model, or: smollm2 is not installed." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("executor", "address"), [("ray", None), ("ray://auto", "auto"), ("ray://head:10001", "ray://head:10001")]
)
def test_where_ray_is(executor, address):
    assert ray_address(executor) == address


@pytest.mark.parametrize("executor", ["dask", "ray://", "ray:auto", "local://x", ""])
def test_other_executors_are_refused(executor):
    with pytest.raises(InputError, match="choose local, ray"):
        ray_address(executor)
