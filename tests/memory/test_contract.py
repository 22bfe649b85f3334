"""Learned memories as methods: budgets, artifacts, segments, and what they cost."""

import pytest
import torch
from helpers.memory_tools import artifact_of, method, one_by_one
from torch.utils.flop_counter import FlopCounterMode

import laconic
from laconic.artifact import Artifact, numbers
from laconic.errors import ArtifactError, BudgetError, ConflictError, SessionError
from laconic.measure.cost import Shape
from laconic.memory.contract import PrefixMethod
from laconic.memory.summary import SummaryTokens
from laconic.method import list_methods
from laconic.methods.memory.autocompressor.network import Summaries
from laconic.methods.memory.beacon.network import Beacons
from laconic.methods.memory.ccf.network import SegmentStates
from laconic.methods.memory.compllm.network import ConceptEmbeddings
from laconic.methods.memory.comprexit.network import TransportedSlots
from laconic.methods.memory.crem.network import Chorus
from laconic.methods.memory.gmsa.network import MergedGroups
from laconic.methods.memory.icae.network import MemorySlots
from laconic.methods.memory.mean_pool.network import PooledStates
from laconic.methods.memory.uniicl.network import VirtualTokens
from laconic.methods.memory.x500.network import KeyValueSlots

NETWORKS = {
    "autocompressor": (Summaries, {"slots": 4, "marker": 3}),
    "compllm": (ConceptEmbeddings, {"marker": 3}),
    "comprexit": (TransportedSlots, {"width": 16}),
    "gmsa": (MergedGroups, {"layers": 2, "aligning": 1}),
    "icae": (MemorySlots, {"slots": 4}),
    "mean_pool": (PooledStates, {}),
    "uniicl": (VirtualTokens, {}),
}
FIXED = {"c3", "xrag"}
"""Those with the same number of soft tokens for segments of any length; the file of the method tests them."""
every = pytest.mark.parametrize("name", sorted(NETWORKS))


@pytest.fixture(scope="module")
def texts(llama, tmp_path_factory):
    """Method text of every network, with an artifact for `llama`."""
    folder, made = tmp_path_factory.mktemp("artifacts"), {}
    for name, (network, facts) in NETWORKS.items():
        torch.manual_seed(0)
        made[name] = artifact_of(name, llama, network(llama, 8, **facts), folder / f"{name}.safetensors", **facts)
    return made


def test_every_method_that_makes_soft_tokens_is_tested_here():
    soft = {entry.name for entry in list_methods() if entry.site == "memory" and not issubclass(entry.cls, PrefixMethod)}
    assert soft == set(NETWORKS) | FIXED


@every
@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_soft_tokens_of_a_context(llama, prompt, texts, name, keep):
    made = method(texts[name], keep)
    made.attach(llama)
    ids = prompt(1, 20)
    soft = made.compress(llama, ids[0].tolist())
    extra = 1 if name == "icae" else 0
    assert soft.shape == ({0.5: 10, 0.25: 5}[keep] + extra, 32) and soft.dtype == torch.float32
    assert not soft.requires_grad and bool(soft.isfinite().all())
    if name != "autocompressor":
        want = one_by_one(made.network, llama, ids, keep)[0]
        torch.testing.assert_close(soft[: len(want)], want, atol=1e-5, rtol=1e-5)


@every
@pytest.mark.parametrize("tokens", [20, 5])
def test_flops_are_those_of_the_products_that_run(llama, prompt, texts, name, tokens):
    made = method(texts[name])
    made.attach(llama)
    with FlopCounterMode(display=False) as counter:
        made.compress(llama, prompt(1, tokens)[0].tolist())
    told = made.flops(Shape.of(llama, llama.model), tokens)
    # the counter takes whole attention matrices, the formula visible pairs; neither is a large part here
    assert told == pytest.approx(counter.get_total_flops(), rel=0.2)


@every
def test_a_share_that_was_not_trained_is_refused(llama, texts, name):
    with pytest.raises(BudgetError, match=r"keep=0\.1: this artifact was trained for 0\.5, 0\.25"):
        method(texts[name], 0.1).attach(llama)


def test_other_budgets_are_refused():
    with pytest.raises(BudgetError, match="give keep="):
        laconic.CompLLM(tokens=20)


def test_another_models_artifact_is_refused(make_llama, texts):
    with pytest.raises(ArtifactError, match="made for other weights"):
        method(texts["compllm"]).attach(make_llama(seed=5))


def test_a_session_is_refused_with_what_to_do_instead(llama, texts):
    with pytest.raises(SessionError, match=r"laconic\.Memory\.of"), laconic.compress(llama, method(texts["compllm"])):
        pass


def test_two_memories_do_not_go_together(llama, texts):
    with pytest.raises(ConflictError, match="memory"):
        laconic.compress(llama, method(texts["compllm"]), method(texts["gmsa"]))


PREFIXES = {
    "beacon": (Beacons, {"segment": 8, "marker": 3}),
    "ccf": (SegmentStates, {"segment": 8, "marker": 3}),
    "crem": (Chorus, {"chorus": 8}),
    "gist": (SummaryTokens, {}),
    "voco_llama": (SummaryTokens, {}),
    "x500": (KeyValueSlots, {"segment": 8, "slots": 4}),
}
TRAINED_APART = {"cartridge"}
"""Those that no network makes; the file of the method tests them."""


def test_every_method_that_makes_prefixes_is_tested_here():
    known = {entry.name for entry in list_methods() if issubclass(entry.cls, PrefixMethod)}
    assert known == set(PREFIXES) | TRAINED_APART


@pytest.mark.parametrize("name", sorted(PREFIXES))
def test_a_prefix_of_a_context_and_its_flops(llama, prompt, tmp_path, name):
    network, facts = PREFIXES[name]
    torch.manual_seed(0)
    built = network(llama, **facts)
    data = {"keeps": [0.5, 0.25], "segment": 8, **facts}
    Artifact.of(name, "trained", llama, data, numbers(built)).save(tmp_path / "a.safetensors")
    made = method(f"{name}:artifact={tmp_path / 'a.safetensors'}", 0.25)
    made.attach(llama)
    opening, ids = prompt(1, 3, seed=4)[0].tolist(), prompt(1, 21)[0].tolist()
    with FlopCounterMode(display=False) as counter:
        prefix = made.compress(llama, ids, opening)
    assert prefix.entries <= 3 + 6 + 5 and prefix.keys[0].shape[:2] == (1, 2) and not prefix.keys[0].requires_grad
    told = made.flops(Shape.of(llama, llama.model), 21, 3)
    assert told == pytest.approx(counter.get_total_flops(), rel=0.25)
    with pytest.raises(BudgetError, match="trained for"):
        method(f"{name}:artifact={tmp_path / 'a.safetensors'}", 0.1).attach(llama)
