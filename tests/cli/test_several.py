"""Several questions in one command: the context is read once, and each is answered as if it were the only one."""

ASKED = ("What is the code for falcon?", "What is the code for otter?")
NOTE = "examples/note.txt"


def questions(*texts):
    return [x for text in texts for x in ("-q", text)]


def test_each_is_answered_as_if_it_were_the_only_one(laconic, tmp_path):
    args = ("run", "--method", "keydiff", "--keep", 0.5, "--context", NOTE)
    alone = [laconic.json(*args, "--query-agnostic", "-q", question)["answer"] for question in ASKED]
    together = laconic.json(*args, "--query-agnostic", *questions(*ASKED, ASKED[0]))
    assert [row["answer"] for row in together["answers"]] == [*alone, alone[0]]
    assert together["kv_bytes"] < 0.51 * together["kv_bytes_full"] and together["methods"][0]["name"] == "keydiff"
    file = tmp_path / "notes.context"
    for more in (args[1:], ()):  # the file is written, then asked
        from_file = laconic.json("run", *more, "--cache", file, *questions(*ASKED))
        assert [row["answer"] for row in from_file["answers"]] == alone


def test_what_does_not_go_together_is_refused(laconic):
    args = ("run", "--context", NOTE, *questions(*ASKED))
    assert "add --query-agnostic, or --cache FILE" in laconic.bad(2, *args)
    assert "--compare goes with one --question" in laconic.bad(2, *args, "--query-agnostic", "--compare")
