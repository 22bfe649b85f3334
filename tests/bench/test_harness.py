"""lm-evaluation-harness on the testbed model, offline, on small tasks that are written here."""

import json
import os
from dataclasses import dataclass

import pytest
import torch

os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
pytest.importorskip("lm_eval", reason="lm-eval is not installed; it comes with laconic-transformers[bench]")

from laconic import BudgetError, ConflictError, SessionError, UnknownNameError, compress, create_method, load
from laconic.bench import harness
from laconic.cache.contract import CacheMethod
from laconic.cache.storage import StorageMethod
from laconic.method import CATALOGUE, register
from laconic.shipped import model_path
from laconic.tasks.text.chat import messages
from laconic.tasks.text.retrieval import make

SAMPLES, TOKENS = 5, 384

COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
test_split: test
doc_to_text: "{{{{prompt}}}}"
metadata: {{version: 1}}
"""
GENERATE = """
task: codes_said
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["."], max_gen_toks: 12}
filter_list: [{name: plain, filter: [{function: remove_whitespace}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOOSE = """
task: codes_chosen
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "{{choices.index(answer)}}"
target_delimiter: " "
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
ROLLING = """
task: codes_read
output_type: loglikelihood_rolling
doc_to_target: "{{prompt}}"
metric_list: [{metric: word_perplexity}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A task manager that knows the tasks above: a code asked for among many codes of one form."""
    from lm_eval.tasks import TaskManager

    folder = tmp_path_factory.mktemp("tasks")
    tokenizer = load("testbed/lm")[1]
    rows = []
    for seed in range(1_000_000, 1_000_000 + SAMPLES):
        sample = make("multikey", seed, TOKENS, tokenizer)
        chat = messages(sample, prefix=True)
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
        codes = [line.split()[-1].rstrip(".") for line in sample.context.splitlines() if line.startswith("The code for")]
        (answer,) = sample.turns[0].answers
        rows.append({"prompt": prompt, "answer": answer, "choices": sorted({*codes[:3], answer})})
    file = folder / "codes.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    for name, text in {"said": GENERATE, "chosen": CHOOSE, "read": ROLLING}.items():
        (folder / f"{name}.yaml").write_text(COMMON.format(file=file, cache=folder / "cache") + text)
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture(scope="module")
def run(tasks):
    """`run(model, names=..., **model_args)` -> the harness's results."""
    from lm_eval import simple_evaluate

    def evaluate(model="laconic", names=("codes_said", "codes_chosen"), batch_size=1, **args):
        return simple_evaluate(
            model=model, model_args=args, tasks=list(names), task_manager=tasks, device="cpu", bootstrap_iters=0,
            batch_size=batch_size,
        )  # fmt: skip

    return evaluate


@pytest.fixture(scope="module")
def stock(run):
    return run("hf", pretrained=str(model_path("testbed/lm")), dtype="float32")


def accuracies(results):
    said, chosen = results["results"]["codes_said"], results["results"]["codes_chosen"]
    return said["exact_match,plain"], chosen["acc,none"]


def log_likelihoods(results):
    return torch.tensor([r[0][0] for s in results["samples"]["codes_chosen"] for r in s["resps"]])


def outputs(results):
    return [sample["resps"] for sample in results["samples"]["codes_said"]]


@pytest.mark.parametrize("args", [{"method": "snapkv", "keep": 1.0}, {}], ids=["keep all", "no method"])
def test_a_neutral_run_is_the_hf_model(run, stock, args):
    mine = run(pretrained="testbed/lm", **args)
    assert accuracies(mine) == accuracies(stock) == (1.0, 1.0)
    assert outputs(mine) == outputs(stock)
    torch.testing.assert_close(log_likelihoods(mine), log_likelihoods(stock), atol=1e-3, rtol=0)
    assert mine["config"]["laconic"]["achieved"] == 1


def test_a_small_budget_stores_less_and_is_worse(run):
    mine = run(pretrained="testbed/lm", method="random", keep=0.1)
    figures = mine["config"]["laconic"]
    assert figures["contexts"] == 2 * SAMPLES
    assert figures["asked"] == pytest.approx(0.1, abs=0.01)
    assert figures["achieved"] == pytest.approx(0.1, abs=0.01)
    assert figures["kv_bytes"] < 0.11 * figures["kv_bytes_full"]
    said, chosen = accuracies(mine)
    assert said < 1 and chosen < 1


def test_results_name_the_methods_with_their_parameters(run):
    mine = run(pretrained="testbed/lm", method="snapkv:window=8;keep=0.5", names=["codes_said"])
    assert mine["config"]["laconic"]["methods"] == [str(create_method("snapkv:window=8,keep=0.5"))]
    assert mine["config"]["laconic"]["mode"] == "in view"
    assert mine["config"]["model_args"]["method"] == "snapkv:window=8;keep=0.5"


def test_a_padded_batch_generates_what_single_requests_generate(run):
    args = {"pretrained": "testbed/lm", "method": "snapkv", "keep": 0.3, "names": ["codes_said"]}
    one, three = run(**args), run(batch_size=3, **args)
    assert outputs(one) == outputs(three)
    one, three = one["config"]["laconic"], three["config"]["laconic"]
    assert three["contexts"] == one["contexts"] == SAMPLES
    assert three["kv_bytes_full"] == one["kv_bytes_full"]
    assert 1 <= three["kv_bytes"] / one["kv_bytes"] < 1.01  # a batch is stored as a rectangle
    for key in ("asked", "achieved"):  # of a batch: its entries by its tokens
        assert three[key] == pytest.approx(one[key], rel=1e-4)


def test_perplexity_of_whole_texts_is_refused_with_a_method(run):
    with pytest.raises(SessionError, match=r"rolling log-likelihood.*snapkv.*leave out method="):
        run(pretrained="testbed/lm", method="snapkv", keep=0.5, names=["codes_read"])


def test_perplexity_without_a_method_is_the_hf_models(run):
    mine = run(pretrained="testbed/lm", names=["codes_read"])
    theirs = run("hf", pretrained=str(model_path("testbed/lm")), dtype="float32", names=["codes_read"])
    key = "word_perplexity,none"
    assert mine["results"]["codes_read"][key] == pytest.approx(theirs["results"]["codes_read"][key], rel=1e-4)


# -- log-likelihood against a loop that feeds one token at a time ------------------------------------------------------
@dataclass
class Ask:
    """What the harness calls an instance."""

    args: tuple[str, str]


@pytest.fixture(scope="module")
def lm():
    return harness.LaconicLM("testbed/lm", method="snapkv", keep=0.4, device="cpu")


def slowly(lm, context, continuation):
    """The context into a session, then every token of the continuation held, one by one."""
    total, greedy = 0.0, True
    with torch.no_grad(), compress(lm.model, create_method("snapkv", keep=0.4)) as session:
        logits = lm.model(input_ids=torch.tensor([context])).logits[0, -1]
        for token in continuation:
            total += float(logits.log_softmax(-1)[token])
            greedy = greedy and int(logits.argmax()) == token
            with session.hold():
                logits = lm.model(input_ids=torch.tensor([[token]]), past_key_values=session.cache).logits[0, -1]
    return total, greedy


CONTEXT = "The code for falcon is 4815263.\n" + "Nothing of note is written here.\n" * 12 + "The code for falcon is"
CONTINUATIONS = [" 4815263.", " 4", " 9", " 7777777.", " 4815263."]


def test_continuations_are_scored_after_the_compressed_context(lm):
    scores = lm.loglikelihood([Ask((CONTEXT, text)) for text in CONTINUATIONS], disable_tqdm=True)
    context = lm.tok_encode(CONTEXT)
    for text, (total, greedy) in zip(CONTINUATIONS, scores, strict=True):
        slow, slow_greedy = slowly(lm, context, lm.tok_encode(CONTEXT + text)[len(context) :])
        assert total == pytest.approx(slow, abs=1e-4)
        assert greedy is slow_greedy
    assert scores[0] == scores[4]  # neither order nor neighbours matter


def test_the_whole_context_would_be_scored_differently(lm):
    full = harness.LaconicLM("testbed/lm", device="cpu")
    ask = [Ask((CONTEXT, " 4815263."))]
    assert abs(full.loglikelihood(ask, disable_tqdm=True)[0][0] - lm.loglikelihood(ask, disable_tqdm=True)[0][0]) > 1e-3


def test_contexts_are_read_once_and_noted_once(lm, monkeypatch):
    monkeypatch.setattr(lm, "figures", harness.HarnessTotals())
    lengths = []
    context = lm.tok_encode(CONTEXT)
    with lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    ):
        lm._loglikelihood_tokens([(None, context, [300 + i]) for i in range(4)], disable_tqdm=True)
    assert lengths == [len(context)]  # choices of one token need what the context predicts and nothing else
    assert lm.figures.contexts == 1


def test_an_empty_context_is_the_first_token(lm):
    total, _ = lm.loglikelihood([Ask(("", "The code"))], disable_tqdm=True)[0]
    slow, _ = slowly(lm, [lm.prefix_token_id], lm.tok_encode("The code", add_special_tokens=False))
    assert total == pytest.approx(slow, abs=1e-4)


def test_a_long_context_is_cut_from_the_left(lm, monkeypatch, caplog):
    monkeypatch.setattr(lm, "_max_length", 20)
    context = list(range(300, 340))
    cut = lm._loglikelihood_tokens([(None, context, [5, 6, 7])], disable_tqdm=True)
    assert "context of 40 tokens cut from the left to 18" in caplog.text
    assert cut == lm._loglikelihood_tokens([(None, context[-18:], [5, 6, 7])], disable_tqdm=True)
    for wrong in ([], [5] * 21):
        with pytest.raises(ValueError, match=f"{len(wrong)} tokens cannot be scored; 1 to 20"):
            lm._loglikelihood_tokens([(None, context, wrong)], disable_tqdm=True)


# -- building -----------------------------------------------------------------------------------------------------
def test_build_reads_what_create_reads():
    assert harness.build(None) == []
    assert harness.build("adakv:scorer=keydiff;alpha=0.1", keep=0.2) == [
        create_method("adakv:scorer=keydiff,alpha=0.1", keep=0.2)
    ]
    assert harness.build("snapkv", tokens=64) == [create_method("snapkv", tokens=64)]
    with pytest.raises(ValueError, match="budget without a method"):
        harness.build(None, keep=0.2)
    with pytest.raises(BudgetError, match="keep=2"):
        harness.build("snapkv", keep=2)
    with pytest.raises(UnknownNameError, match="snapkv"):
        harness.build("snapvk+snapkv", keep=0.5)


def test_a_joined_budget_is_for_the_methods_that_choose():
    @register("packs", site="cache", mechanism="quantisation", source="a test", query_aware=False)
    class Packs(StorageMethod):
        """Store as it is."""

    @register("chooses", site="cache", mechanism="eviction", source="a test", query_aware=False)
    class Chooses(CacheMethod):
        """Choose by parameters of its own when no budget is given."""

        default_keep = None

    try:
        for chooser in ("snapkv", "chooses"):
            first, packs = harness.build(f"{chooser} + packs", keep=0.2)
            assert (first.keep, packs.keep) == (0.2, None)
        assert harness.build("packs", keep=0.2)[0].keep == 0.2
        assert harness.build("snapkv + packs:keep=0.5", keep=0.2)[1].keep == 0.5
    finally:
        del CATALOGUE["packs"], CATALOGUE["chooses"]


def test_what_does_not_fit_is_refused_before_any_request():
    with pytest.raises(ConflictError, match="snapkv and knorm both claim"):
        harness.LaconicLM("testbed/lm", method="snapkv+knorm", keep=0.2, device="cpu")
    with pytest.raises(ValueError, match=r"mode='later'.*laconic bench"):
        harness.LaconicLM("testbed/lm", method="snapkv", mode="later")
    with pytest.warns(DeprecationWarning, match='mode="in view"'), pytest.raises(ValueError, match="unknown method 'none'"):
        harness.LaconicLM("testbed/lm", method="none", mode="aware")


@pytest.mark.slow
def test_the_command_line_is_the_harnesss_own(tmp_path, monkeypatch, tasks):
    folder = next(iter(tasks.include_path)) if isinstance(tasks.include_path, list) else tasks.include_path
    harness.main(
        ["run", "--model", "laconic", "--model_args", "pretrained=testbed/lm,method=snapkv:window=8;keep=0.25",
         "--tasks", "codes_chosen", "--include_path", str(folder), "--device", "cpu", "--limit", "2",
         "--output_path", str(tmp_path)]
    )  # fmt: skip
    (written,) = tmp_path.rglob("results*.json")
    config = json.loads(written.read_text())["config"]
    assert config["model"] == "laconic"
    assert config["laconic"]["contexts"] == 2
    assert config["laconic"]["methods"] == [str(create_method("snapkv:window=8,keep=0.25"))]
