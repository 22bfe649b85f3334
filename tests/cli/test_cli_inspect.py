"""`laconic inspect`: indices are the session's, the page is self-contained and escaped."""

import re
from pathlib import Path

import torch

import laconic as api
from laconic.prompts.text import build

KEYS = {
    "model", "methods", "mode", "chat_template", "answer", "answer_prefix", "asked", "achieved", "tokens", "question_at",
    "ids", "kept", "stream", "stream_from", "out", "warnings", "uncompressed", "shortened",
    "agree", "budgets",
}  # fmt: skip


def test_kept_indices_are_those_of_the_prompt(laconic, model, context, tmp_path, monkeypatch):
    """H2O goes on evicting while it decodes; what is shown is what the prompt left."""
    monkeypatch.chdir(tmp_path)
    found = laconic.json(
        "inspect",
        "--model",
        model,
        "--method",
        "h2o",
        "--keep",
        0.2,
        "--context",
        context,
        "-q",
        "Wo?",
        "--max-new-tokens",
        9,
    )
    assert set(found) == KEYS and found["out"] is None and not Path("inspect.html").exists()
    loaded, tokenizer = api.load(model)
    prompt = build(tokenizer, Path(context).read_text(encoding="utf-8"), "Wo?")
    with api.compress(loaded, api.H2O(keep=0.2)) as session, torch.no_grad():
        loaded(torch.tensor([prompt.ids]))
        expected = {str(i): {str(h): session.kept(i, h).tolist() for h in range(2)} for i in range(3)}
    assert found["kept"] == expected
    assert found["ids"] == prompt.ids and found["question_at"] == len(prompt.context) and found["tokens"] == prompt.tokens
    assert found["stream"] is None and found["stream_from"] is None
    ids = torch.tensor([prompt.ids])
    out = loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, do_sample=False)
    assert found["uncompressed"] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert found["agree"] == (found["answer"] == found["uncompressed"])


def test_several_budgets_are_one_page(laconic, model, context, tmp_path):
    """What is said of one run is said of the first; the slider goes from the tightest to the uncompressed model."""
    out = tmp_path / "page.html"
    args = ("inspect", "--model", model, "--method", "knorm", "--context", context, "-q", "Wo?", "--max-new-tokens", 3)
    found = laconic.json(*args, "--keep", "0.5,0.1", "--out", out)
    alone = [laconic.json(*args, "--keep", keep) for keep in (0.5, 0.1)]
    assert [one["label"] for one in found["budgets"]] == ["0.5", "0.1"]
    for one, own in zip(found["budgets"], alone, strict=True):
        assert (one["answer"], one["kept"], one["achieved"]) == (own["answer"], own["kept"], own["achieved"])
    assert (found["asked"], found["kept"], found["answer"]) == (0.5, alone[0]["kept"], alone[0]["answer"])
    page = out.read_text(encoding="utf-8")
    assert re.findall(r"data-level=\d+>([^<]+)<", page) == ["0.1", "0.5", "full"] and '"start":1' in page
    assert "Budgets and answers" in page and page.count('class="counts"') == 3
    assert "give one --keep" in laconic.bad(2, *args[:4], "picked", *args[5:], "--keep", "0.5,0.1")


def test_the_page(laconic, model, context, tmp_path):
    out = tmp_path / "page.html"
    shown = laconic(
        "inspect", "--model", model, "--method", "adakv", "--keep", 0.2, "--context", context, "-q",
        "<script>alert(1)</script>", "--out", out, "--max-new-tokens", 2,
    )  # fmt: skip
    assert shown.exit_code == 0 and "achieved" in shown.stdout
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script>alert" not in page and "&lt;script&gt;" not in page.split("<dl")[0]
    for outside in ("http:", "https:", "src=", "@import", "url("):
        assert outside not in page
    assert "ü</s>" in page and "🦊</s>" in page  # bytes of one character are one piece
    assert "adakv(keep=0.2" in page and "asked 20.00%, achieved 19." in page and "<dt>uncompressed</dt>" in page


def test_default_file_and_json_beside_it(laconic, model, context, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = ("inspect", "--model", model, "--method", "knorm", "--context", context, "--max-new-tokens", 1)
    assert laconic(*args).exit_code == 0
    assert Path("inspect.html").stat().st_size > 10_000
    assert laconic.json(*args, "--out", "other.html")["out"] == "other.html"
    assert Path("other.html").exists()


def test_travellers_of_fastkv(laconic, model, context):
    args = (
        "inspect",
        "--model",
        model,
        "--method",
        "fastkv:window=2",
        "--context",
        context,
        "-q",
        "Wo?",
        "--max-new-tokens",
        1,
    )
    found = laconic.json(*args)
    assert found["stream_from"] == 1 and len(found["stream"]) == int(found["tokens"] * 0.2)
    for layer in ("1", "2"):
        assert all(set(kept) <= set(found["stream"]) for kept in found["kept"][layer].values())
    chunked = laconic.json(*args, "--prefill-chunk-size", 100)
    assert chunked["stream"] == sorted(set(chunked["stream"])) and max(chunked["stream"]) == found["tokens"] - 1
    for layer in ("1", "2"):
        assert all(set(kept) <= set(chunked["stream"]) for kept in chunked["kept"][layer].values())
    agnostic = laconic.json(*args, "--later")
    question = set(range(agnostic["question_at"], agnostic["tokens"]))
    assert question <= set(agnostic["stream"])
    assert all(question <= set(kept) for heads in agnostic["kept"].values() for kept in heads.values())
    for layer in ("1", "2"):
        assert all(set(kept) <= set(agnostic["stream"]) for kept in agnostic["kept"][layer].values())
