"""`laconic run`: answers, figures, modes, JSON keys."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.run_keys import COMPARED, KEYS

import laconic as api
from laconic.prompts.text import build

ENTRY = 3 * 2 * (8 + 8) * 4  # bytes of a token: layers, KV heads, key and value channels, fp32


def test_figures_are_those_of_a_session(laconic, model, context):
    found = laconic.json(
        "run", "--model", model, "--method", "snapkv:window=8", "--keep", 0.25, "--context", context, "-q", "Wo? 🦊",
        "--max-new-tokens", 5,
    )  # fmt: skip
    assert set(found) == KEYS
    loaded, tokenizer = api.load(model)
    prompt = build(tokenizer, Path(context).read_text(encoding="utf-8"), "Wo? 🦊")
    ids = torch.tensor([prompt.ids])
    with api.compress(loaded, api.SnapKV(keep=0.25, window=8)) as session:
        out = loaded.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert found["answer"] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    kept = int(prompt.tokens * 0.25)
    assert found["prompt"] == {
        "tokens": prompt.tokens,
        "context_tokens": len(prompt.context),
        "question_tokens": len(prompt.question),
    }
    assert found["entries"] == [{"layer": i, "min": kept, "mean": kept, "max": kept} for i in range(3)]
    assert found["achieved"] == pytest.approx(kept / prompt.tokens) == found["asked"]
    assert found["kv_bytes"] == kept * ENTRY and found["kv_bytes_full"] == prompt.tokens * ENTRY
    assert found["kv_bytes_end"] == session.stats.kv_bytes == (kept + 4) * ENTRY
    assert found["prefill_flops"] == session.stats.prefill_flops == found["prefill_flops_full"]
    assert found["decode_flops"] == session.stats.decode_flops
    assert found["methods"][0]["name"] == "snapkv" and found["methods"][0]["parameters"]["window"] == 8
    assert found["methods"][0]["budget"] == {"keep": 0.25, "tokens": None, "bytes": None}
    assert (found["mode"], found["chat_template"], found["compared"]) == ("in view", True, None)
    assert found["tokens_out"] == 5 and found["finish"] == "length" and found["warnings"] == []
    assert found["prefill_seconds"] > 0 and found["decode_seconds_per_token"] > 0 and found["peak_memory_bytes"] > 10**7


@pytest.mark.parametrize("extra", [(), ("--later",), ("--prefill-chunk-size", 50)])
@pytest.mark.parametrize("method", [(), ("--method", "snapkv", "--keep", 1.0)])
def test_neutral_runs_agree_with_the_stock_model(laconic, model, context, method, extra):
    found = laconic.json(
        "run", "--model", model, *method, *extra, "--context", context, "-q", "Was?", "--compare", "--max-new-tokens", 6
    )
    assert set(found["compared"]) == COMPARED
    assert found["compared"]["agree"] and found["compared"]["first_difference"] is None
    assert found["compared"]["answer"] == found["answer"]
    for key in ("kv_bytes", "kv_bytes_end", "decode_flops"):
        assert found["compared"][key] == found[key]
    assert found["asked"] == found["achieved"] == 1.0


def test_compare_says_where_answers_part(laconic, model, context):
    found = laconic.json(
        "run", "--model", model, "--method", "random", "--tokens", 4, "--context", context, "-q", "Was?", "--compare"
    )
    beside = found["compared"]
    assert not beside["agree"] and beside["answer"] != found["answer"]
    assert beside["kv_bytes"] == found["kv_bytes_full"] and beside["kv_bytes"] > 20 * found["kv_bytes"]


def test_later_compresses_the_context_and_keeps_the_question_whole(laconic, model, context):
    asked = (
        "run",
        "--model",
        model,
        "--method",
        "snapkv:window=4",
        "--tokens",
        20,
        "--context",
        context,
        "--later",
    )
    found = laconic.json(*asked, "-q", "Wo?", "--max-new-tokens", 2)
    prompt = found["prompt"]
    assert found["mode"] == "later" and found["budget_tokens"] == prompt["context_tokens"]
    assert found["entries"][0]["max"] == 20 + prompt["question_tokens"]
    assert found["achieved"] == pytest.approx(20 / prompt["context_tokens"])
    longer = laconic.json(*asked, "-q", "Wo ist der Fuchs?", "--max-new-tokens", 2)
    assert longer["achieved"] == found["achieved"]
    chunked = laconic.json(*asked, "-q", "Wo?", "--max-new-tokens", 2, "--prefill-chunk-size", 64)
    assert chunked["entries"] == found["entries"]


def test_a_common_budget_that_no_method_takes_is_refused(laconic, model, context):
    """A sweep over --keep would otherwise measure the same thing again and again."""
    own = ("run", "--model", model, "--method", "knorm:tokens=30", "--context", context, "--max-new-tokens", 1)
    found = laconic.json(*own)
    assert found["entries"][0]["max"] == 30 and found["decode_seconds_per_token"] is None
    message = laconic.bad(2, *own, "--keep", 0.5)
    assert "keep=0.5 is for no method: 'knorm:tokens=30' has a budget of its own; give one of the two" in message


def test_bytes_are_met(laconic, model, context):
    found = laconic.json(
        "run", "--model", model, "--method", "knorm", "--bytes", 25 * ENTRY, "--context", context, "--max-new-tokens", 1
    )
    assert found["kv_bytes"] == 25 * ENTRY


def test_fastkv_reports_its_shortened_stream(laconic, model, context):
    found = laconic.json(
        "run", "--model", model, "--method", "fastkv", "--context", context, "-q", "?", "--max-new-tokens", 1
    )
    n = found["prompt"]["tokens"]
    assert found["stream"] == {"0": n, "1": int(n * 0.2), "2": int(n * 0.2)}
    assert found["prefill_flops"] < found["prefill_flops_full"]


def test_without_a_template_the_prompt_is_plain(laconic, plain_model, context):
    found = laconic.json("run", "--model", plain_model, "--context", context, "-q", "Wo?", "--max-new-tokens", 1)
    assert found["chat_template"] is False
    assert found["prompt"]["question_tokens"] == len("\n\nQuestion: Wo?\nAnswer:")


def test_answer_prefix_and_system_are_part_of_the_prompt(laconic, model, context):
    base = ("run", "--model", model, "--context", context, "-q", "Wo?", "--max-new-tokens", 1)
    bare = laconic.json(*base)["prompt"]
    found = laconic.json(*base, "--answer-prefix", "Dort", "--system", "Sei nett.")
    assert found["prompt"]["question_tokens"] == bare["question_tokens"] + 4
    assert found["prompt"]["context_tokens"] == bare["context_tokens"] + len("Sei nett.") + 2
    assert found["answer_prefix"] == "Dort"


def test_protected_text_stays(laconic, model, context):
    args = ("--method", "streaming_llm:sinks=1", "--tokens", 40, "--context", context, "-q", "?", "--max-new-tokens", 1)
    free = laconic.json("inspect", "--model", model, *args)
    held = laconic.json("inspect", "--model", model, *args, "--protect", "20:30")
    inside = set(range(20, 30))
    assert not inside & set(free["kept"]["0"]["0"])
    for heads in held["kept"].values():
        assert all(inside <= set(kept) for kept in heads.values())


def test_sampling_follows_the_seed(laconic, model, context):
    args = ("run", "--model", model, "--context", context, "-q", "?", "--max-new-tokens", 12)
    hot = [laconic.json(*args, "--temperature", 1.5, "--seed", seed) for seed in (1, 1, 2)]
    assert hot[0]["answer"] == hot[1]["answer"] != hot[2]["answer"]
    assert hot[0]["settings"]["sample"] is True and hot[0]["settings"]["temperature"] == 1.5


def test_long_prompts_are_never_silent(laconic, short_model, context):
    args = ("run", "--model", short_model, "--context", context, "-q", "?", "--max-new-tokens", 1)
    assert "128 positions" in laconic.json(*args)["warnings"][0]
    shown = " ".join(laconic(*args).stdout.replace("│", " ").split())
    assert "warning: prompt and answer take" in shown


def test_missed_budgets_are_never_silent(laconic, model, context):
    """FastKV cannot store more than what travelled on."""
    found = laconic.json(
        "run",
        "--model",
        model,
        "--method",
        "fastkv:tsp_rate=0.2",
        "--keep",
        0.6,
        "--context",
        context,
        "-q",
        "?",
        "--max-new-tokens",
        1,
    )
    assert found["achieved"] < found["asked"] - 0.02
    assert len(found["warnings"]) == 1 and "was asked to keep" in found["warnings"][0]


def test_a_missing_question_is_never_silent(laconic, model, context):
    found = laconic.json("run", "--model", model, "--context", context, "--max-new-tokens", 1)
    assert found["warnings"] == ["no --question: the model goes on from what it is shown."]


def test_stdin_with_a_bom(laconic, model):
    found = laconic.json("run", "--model", model, "--context", "-", "--max-new-tokens", 1, stdin="\ufeffÄ".encode())
    assert found["prompt"]["context_tokens"] == 2 + 2  # <s><|user|> and the two bytes of Ä


def test_panel(laconic, model, context):
    shown = laconic(
        "run", "--model", model, "--method", "adakv", "--keep", 0.2, "--context", context, "-q", "?", "--compare",
        "--max-new-tokens", 3,
    )  # fmt: skip
    assert shown.exit_code == 0
    for text in (
        "asked 20%, achieved 19.",
        "entries per layer",
        "KV bytes",
        "uncompressed",
        "ratio",
        "chat template applied",
        "peak memory",
    ):
        assert text in shown.stdout
    assert "the method's own work" not in laconic("run", "--model", model, "-q", "?", "--max-new-tokens", 1).stdout
    assert "\x1b" not in shown.stdout and shown.stderr == ""


def test_process_speaks_utf8_and_only_json(model, tmp_path):
    """A real process whose streams were latin-1: stdout holds JSON in UTF-8, stderr nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "laconic.cli", "run", "--model", model, "--context", "-", "-q", "Grüße 🦊?",
         "--answer-prefix", "日本", "--max-new-tokens", "4", "--method", "tova", "--keep", "0.5", "--compare", "--json"],
        input="Köln 🦊".encode(), capture_output=True, timeout=300, env=environment(LC_ALL="C", PYTHONIOENCODING="latin-1"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["answer_prefix"] == "日本"
    assert not [line for line in done.stderr.splitlines() if not line.endswith(b" ...")]  # what takes long is told


def environment(**more: str) -> dict[str, str]:
    source = str(Path(api.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def test_layers_left_alone_are_named_and_figures_compare_like_with_like(laconic, model, context, tmp_path):
    """Sliding-window layers are not compressed: both columns speak of the others."""
    from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=262, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=16, max_position_embeddings=1024, pad_token_id=0,
        bos_token_id=1, eos_token_id=None,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(tmp_path / "gemma")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "gemma")
    args = ("run", "--model", tmp_path / "gemma", "--context", context, "-q", "?", "--max-new-tokens", 4, "--compare")
    found = laconic.json(*args)
    assert found["layers"] == [1, 3] and found["layers_left_alone"] == [0, 2] and found["compared"]["agree"]
    for key in ("kv_bytes", "kv_bytes_end", "prefill_flops", "decode_flops"):
        assert found["compared"][key] == found[key]
    assert "layers 0, 2" in laconic(*args).stdout


def test_a_second_reading_is_told(laconic, model, context):
    run = ("run", "--model", model, "--context", context, "-q", "?", "--max-new-tokens", 1, "--keep", 0.5, "--method")
    assert "twice: the model repeats what it has read" in " ".join(laconic(*run, "kvzip").stdout.replace("│", " ").split())
    assert "twice" not in laconic(*run, "knorm").stdout
