"""Several questions in one command: the context is read once, and each is answered as if it were the only one."""

ASKED = ("What is the code for falcon?", "What is the code for otter?")
NOTE = "examples/note.txt"


def questions(*texts):
    return [x for text in texts for x in ("-q", text)]


def test_each_is_answered_as_if_it_were_the_only_one(laconic, tmp_path):
    args = ("run", "--method", "keydiff", "--keep", 0.5, "--context", NOTE)
    alone = [laconic.json(*args, "--later", "-q", question)["answer"] for question in ASKED]
    together = laconic.json(*args, "--later", *questions(*ASKED, ASKED[0]))
    assert [row["answer"] for row in together["answers"]] == [*alone, alone[0]]
    assert together["kv_bytes"] < 0.51 * together["kv_bytes_full"] and together["methods"][0]["name"] == "keydiff"
    file = tmp_path / "notes.context"
    for more in (args[1:], ()):  # the file is written, then asked
        from_file = laconic.json("run", *more, "--cache", file, *questions(*ASKED))
        assert [row["answer"] for row in from_file["answers"]] == alone


def test_what_does_not_go_together_is_refused(laconic):
    args = ("run", "--context", NOTE, *questions(*ASKED))
    assert "add --later, or --cache FILE" in laconic.bad(2, *args)


def test_each_beside_the_uncompressed_one(laconic, tmp_path):
    args = ("--method", "random", "--keep", 0.2, "--context", NOTE)
    how = ("run", *args, "--later", "--compare")
    alone = [laconic.json(*how, "-q", question)["compared"] for question in ASKED]
    rows = laconic.json(*how, *questions(*ASKED))["answers"]
    assert [row["compared"]["answer"] for row in rows] == [one["answer"] for one in alone]
    assert [row["compared"]["agree"] for row in rows] == [one["agree"] for one in alone] == [False, False]
    shown = laconic(*how, *questions(*ASKED)).stdout.splitlines()
    assert [line for line in shown if line.startswith("uncompressed: ")] == [
        f"uncompressed: {one['answer']}" for one in alone
    ]
    assert "0 of 2 answers agree with the uncompressed ones" in shown[-1]
    file = tmp_path / "notes.context"
    for more in (args, ()):
        saved = laconic.json("run", *more, "--cache", file, "--compare", *questions(*ASKED))["answers"]
        assert [row["compared"]["answer"] for row in saved] == [one["answer"] for one in alone]


def test_without_compression_all_agree(laconic):
    how = ("run", "--context", NOTE, "--later", "--compare", *questions(*ASKED))
    assert all(row["compared"]["agree"] for row in laconic.json(*how)["answers"])
    shown = laconic(*how).stdout
    assert "uncompressed: " not in shown and "2 of 2 answers agree" in shown
