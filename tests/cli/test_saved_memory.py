"""`laconic compress` of a learned memory, and `laconic run --memory`."""

import pytest
import torch
from helpers.memory_tools import artifact_of

from laconic import load
from laconic.methods.memory.mean_pool.network import PooledStates

FACTS = "testbed/facts"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    torch.manual_seed(0)
    network = PooledStates(load(FACTS)[0], 16)
    return artifact_of("mean_pool", load(FACTS)[0], network, tmp_path_factory.mktemp("a") / "mean_pool.safetensors")


@pytest.fixture
def facts(tmp_path):
    path = tmp_path / "facts.txt"
    path.write_text("c5 a3 f0 b1 d7 e2 h4 g6")
    return path


def test_a_memory_is_written_and_asked(laconic, spec, facts, tmp_path):
    file = tmp_path / "mem.safetensors"
    made = laconic.json("compress", facts, "--method", spec, "--keep", 0.5, "--model", FACTS, "-o", file)
    assert (made["tokens_in"], made["tokens_out"]) == (8, 4) and made["flops"] > 0 and file.exists()
    options = ["--model", FACTS, "--max-new-tokens", 2, "-q", "f?"]
    asked = laconic.json("run", *options, "--memory", file)
    plain = laconic.json("run", *options, "--context", facts, "--method", f"{spec},keep=0.5")
    assert asked["answer"] == plain["answer"] and asked["kv_bytes"] == plain["kv_bytes"]
    assert asked["prefill_flops"] < plain["prefill_flops"]  # the memory was not made again
    for given in (("--memory", file), ("--context", facts, "--method", f"{spec},keep=0.5")):
        shown = " ".join(laconic("run", *options, *given).stdout.replace("│", " ").split())
        assert "asked 50% of the context, achieved" in shown and "of the prompt" in shown and spec.partition(":")[0] in shown
        assert "the context was compressed by itself" in shown


def test_segments_come_from_the_store_and_are_counted(laconic, spec, facts, tmp_path, monkeypatch):
    """Two documents, then one of them with an edited segment: only that one is compressed again."""
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    words = ("c5 a3 f0 b1 d7 e2 h4 g6 " * 6).split()
    other = tmp_path / "other.txt"
    other.write_text(" ".join(words[:40]))
    facts.write_text(" ".join(words[3:35]))
    common = ("--method", spec, "--keep", 0.5, "--model", FACTS, "--store", "-o", tmp_path / "mem.safetensors")
    both = laconic.json("compress", other, facts, *common)
    assert (both["tokens_in"], both["segments"], both["segments_made"]) == (72, 5, 3)  # whole ones of a document are equal
    words[20] = "c1"
    other.write_text(" ".join(words[:40]))
    edited = laconic.json("compress", other, *common)
    assert (edited["segments"], edited["segments_made"]) == (3, 1) and 0 < edited["flops"] < both["flops"]
    told = laconic("compress", other, *common).stderr
    assert "0 of 3 segments compressed, the others from the store" in " ".join(told.split())
    assert "--store keeps the segments of learned memories" in laconic.bad(2, "compress", facts, "--store")


def test_what_is_missing_is_named(laconic, spec, facts, tmp_path):
    for given in (["--model", FACTS], ["-o", tmp_path / "m.safetensors"]):
        assert "give --model and --out" in laconic.bad(2, "compress", facts, "--method", spec, *given)
    ask = ["run", "--model", FACTS, "--memory", tmp_path / "m"]
    assert "stands for the context" in laconic.bad(2, *ask, "--context", facts, "-q", "f?")
    assert "needs a --question" in laconic.bad(2, *ask)
    assert "does not exist" in laconic.bad(2, *ask, "-q", "f?")


def test_a_prefix_is_fitted_to_a_document_written_and_asked(laconic, facts, tmp_path):
    assert "give one with --data" in laconic.bad(
        2, "fit", "cartridge", "--model", FACTS, "--out", tmp_path / "none.safetensors"
    )
    asked, file, memory = tmp_path / "asked.txt", tmp_path / "c.safetensors", tmp_path / "mem.safetensors"
    asked.write_text("c?\nf?\n")
    settings = [f"requests={asked}", "exchanges=2", "pieces=8", "answer_tokens=2", "steps=1", "keep=0.5"]
    laconic.json(
        "fit", "cartridge", "--model", FACTS, "--data", facts, "--out", file, *[x for s in settings for x in ("--set", s)]
    )
    method = f"cartridge:artifact={file}"
    made = laconic.json("compress", facts, "--method", method, "--model", FACTS, "-o", memory)
    assert (made["tokens_in"], made["tokens_out"]) == (8, 5) and made["flops"] > 0
    options = ["--model", FACTS, "--max-new-tokens", 2, "-q", "f?"]
    from_file = laconic.json("run", *options, "--memory", memory)
    plain = laconic.json("run", *options, "--context", facts, "--method", method)
    assert from_file["answer"] == plain["answer"] and from_file["kv_bytes"] == plain["kv_bytes"]
