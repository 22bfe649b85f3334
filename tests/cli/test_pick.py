"""`laconic pick` and `--method picked`."""

import json

import pytest

from laconic.bench.pick.picking import Picking
from laconic.bench.pick.verdict import Pick, Verdict, place

VERDICTS = (
    Verdict("later", 0.5, "random", 0.97, 0.9, 0.99, 40, {}, 0.51, 12.0, 0.05),
    Verdict("later", 0.25, "knorm", 0.6, 0.4, 0.8, 40, {"random": 0.55}, 0.26, 11.0, 0.04),
    Verdict("in view", 0.5, "knorm", 0.9, 0.8, 0.95, 12, {}, 0.5, 1.0, 0.03),
)
OWN = {"asked": 50, "answered": 40, "documents": 4, "kv_bytes": 2**20, "read_seconds": 10.0, "token_seconds": 0.06}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def found(monkeypatch, folder):
    """`laconic pick` finds VERDICTS, whatever the model."""

    def run(self, minutes, tell=None):
        from laconic.bench.fingerprint import fingerprint

        self.refused = {("kvzip", 0.25): "no reason", ("snapkv", 0.25): "no reason", ("kvzip", 0.1): "no reason"}
        return Pick(self.name, fingerprint(self.engine.model), self.data, minutes, OWN, VERDICTS, {}, {})

    monkeypatch.setattr(Picking, "run", run)


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps({"context": "c", "questions": [{"question": "q", "answers": ["a"]}]}), encoding="utf-8")
    return file


def test_it_says_what_to_use_and_how_sure_that_is(laconic, model, found, data, folder):
    done = laconic("pick", "--model", model, "--data", data)
    assert done.exit_code == 0, done.output
    assert "own.jsonl: it answers 40 of 50 questions about 4 documents uncompressed" in done.stdout
    later, in_view = done.stdout.split("question in the prompt")
    assert "97% 90% to 99%" in later and "use random at 0.5: 97% of the answers stay" in later
    assert "0.25: no clear winner; 40 questions do not tell it from random 55%" in later
    assert (
        "no budget tried keeps 95% of the answers" in in_view
        and "left out: kvzip at keep 0.25, 0.1; snapkv at keep 0.25: no reason" in done.stderr
    )
    (file,) = (folder / "picks").iterdir()
    assert str(file) in done.stdout.replace("\n", "")
    assert laconic.json("pick", "--model", model, "--data", data)["verdicts"][0]["method"] == "random"


def test_run_chat_and_inspect_follow_it(laconic, model, found, data, context):
    laconic("pick", "--model", model, "--data", data)
    ask = "run", "--model", model, "--context", context, "-q", "Wo?", "--max-new-tokens", 2, "--method", "picked"

    def method(*more):
        done = laconic.json(*ask, *more)
        return done["methods"][0]["name"], done["methods"][0]["budget"]["keep"], bool(done["warnings"])

    assert method() == ("knorm", 0.5, True)  # in view, where no budget keeps 95 %
    assert method("--later") == ("random", 0.5, False)  # the smallest budget that keeps 95 %
    assert method("--later", "--keep", 0.3) == ("knorm", 0.3, False)
    assert method("--later", "--keep", 0.1) == ("knorm", 0.1, True)  # far from what was tried
    done = laconic("chat", *ask[1:5], "--method", "picked", stdin=b"/stats\n")
    assert "random(keep=0.5" in done.stdout
    assert laconic.json("inspect", *ask[1:])["methods"][0]["name"] == "knorm"


def test_without_a_pick_it_says_what_to_run(laconic, model, folder, context):
    ask = "run", "--model", model, "--context", context, "-q", "Wo?", "--method", "picked"
    assert f"find out with: laconic pick --model {model}" in laconic.bad(2, *ask)
    assert "stands alone" in laconic.bad(2, *ask, "--method", "random")
    assert "goes with --keep" in laconic.bad(2, *ask, "--tokens", 5)


def test_a_damaged_file_says_what_to_run(laconic, model, found, data, folder, context):
    laconic("pick", "--model", model, "--data", data)
    (file,) = (folder / "picks").iterdir()
    file.write_text("{")
    line = laconic.bad(2, "run", "--model", model, "--context", context, "-q", "Wo?", "--method", "picked")
    assert "run laconic pick again" in line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--keep", "0.5,x"), "--keep 0.5,x: give shares"),
        (("--keep", "1.5"), "1.5"),
        (("--methods", "randm"), "did you mean random"),
        (("--task", "colour"), "pick asks about texts"),
        (("--task", "own"), "pick asks about texts"),
        (("--task", "fact"), "did you mean facts"),
        (("--data", "none.jsonl"), "none.jsonl cannot be read"),
    ],
)
def test_bad_input(laconic, model, args, said):
    assert said in laconic.bad(2, "pick", "--model", model, *args)


@pytest.mark.slow
def test_on_a_model_that_can_answer(laconic, folder):
    done = laconic.json(
        "pick", "--model", "testbed/lm", "--task", "kvturns", "--methods", "random,keydiff", "--keep", "0.25", "--minutes", 3
    )
    later = next(one for one in done["verdicts"] if one["mode"] == "later")
    assert later["method"] == "keydiff" and later["share"] > 0.5 and later["questions"] >= 8
    assert done["minutes"] < 4 and place(done["fingerprint"]).exists()
