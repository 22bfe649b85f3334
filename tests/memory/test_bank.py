"""A bank of memories: made once, found by a plain sort, joined with the nearest first."""

import pytest
import torch
from helpers.bench_tools import tiny
from helpers.memory_tools import artifact_of

import laconic
from laconic.methods.memory.uniicl.network import VirtualTokens
from laconic.prompts.text import PromptError

TEXTS = ["The code for falcon is 4815263.", "Put amber into the box.", "Ships bring salt.", "A storm took the roof."]
QUESTION = "What is the code for falcon?"


@pytest.fixture(scope="module")
def world():
    return tiny()


@pytest.fixture(scope="module")
def spec(world, tmp_path_factory):
    torch.manual_seed(1)
    return artifact_of("uniicl", world[0], VirtualTokens(world[0], 16), tmp_path_factory.mktemp("a") / "a.safetensors")


@pytest.fixture
def bank(world, spec):
    made = laconic.Bank(*world, f"{spec},keep=0.5")
    made.add(TEXTS)
    return made


@pytest.fixture
def runs(bank, monkeypatch):
    counted = []
    real = type(bank.method).compress
    monkeypatch.setattr(type(bank.method), "compress", lambda self, *args: counted.append(1) or real(self, *args))
    return counted


def test_3_what_is_known_is_not_made_again(bank, runs, world, spec):
    bank.add(TEXTS[:2])
    assert len(bank) == 6 and not runs
    bank.nearest(QUESTION, 2)
    bank.nearest(QUESTION, 3)
    assert len(runs) == 1  # the question, once
    again = laconic.Bank(*world, f"{spec},keep=0.5", bank.known)
    again.add(TEXTS)
    assert len(runs) == 1
    other = laconic.Bank(*world, f"{spec},keep=0.25", bank.known)  # another share: nothing of it is known
    other.add(TEXTS)
    assert len(runs) == 5 and len(other.similarities(QUESTION)) == 4


def test_3_other_weights_make_new_memories(bank, runs, world, tmp_path):
    torch.manual_seed(2)
    network = VirtualTokens(world[0], 16)
    torch.nn.init.normal_(network.slot)
    spec = artifact_of("uniicl", world[0], network, tmp_path / "b.safetensors")
    other = laconic.Bank(*world, f"{spec},keep=0.5", bank.known)
    other.add(TEXTS)
    assert len(runs) == 4
    assert not torch.equal(other.memory(QUESTION, 1).soft, bank.memory(QUESTION, 1).soft)


def test_4_the_nearest_are_those_of_a_plain_sort_ties_in_their_order(bank, world):
    def mean(text):
        soft = laconic.Memory.of(*world, text, bank.method).soft
        return [sum(column) / len(soft) for column in soft.T.tolist()]

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5

    want = [cosine(mean(QUESTION), mean(text)) for text in TEXTS]
    torch.testing.assert_close(bank.similarities(QUESTION), torch.tensor(want), atol=1e-5, rtol=1e-4)
    assert bank.nearest(QUESTION, 4) == sorted(range(4), key=lambda i: -want[i])
    best = bank.nearest(QUESTION, 1)[0]
    bank.add([TEXTS[best]])
    assert bank.nearest(QUESTION, 2) == [best, 4]


@torch.no_grad()
def test_5_8_the_prompt_has_the_nearest_first_and_only_their_slots(bank, world):
    model, tokenizer = world
    order = bank.nearest(QUESTION, 3)
    memory = bank.memory(QUESTION, 3)
    fresh = [laconic.Memory.of(model, tokenizer, TEXTS[i], bank.method) for i in order]
    torch.testing.assert_close(memory.soft, torch.cat([one.soft for one in fresh]), atol=1e-6, rtol=1e-5)
    assert memory.ids == tuple(token for one in fresh for token in one.ids) and memory.flops == sum(x.flops for x in fresh)
    inputs = memory.inputs(model, tokenizer, QUESTION)
    whole = memory.prompt(tokenizer, QUESTION)
    assert inputs["inputs_embeds"].shape[1] == whole.tokens - memory.saved_tokens
    logits = model(**inputs).logits[:, -1]
    turned = laconic.Memory.joined(fresh[::-1]).inputs(model, tokenizer, QUESTION)
    assert float((model(**turned).logits[:, -1] - logits).abs().max()) > 1e-4  # the order counts


def test_memories_that_fit_are_taken_the_nearest_first_and_others_passed_over(bank, world):
    order, sizes = bank.nearest(QUESTION, 4), []
    for i in order:
        sizes.append(len(laconic.Memory.of(*world, TEXTS[i], bank.method).soft))
    for tokens in range(min(sizes), sum(sizes) + 1):
        memory, room, wanted = bank.within(QUESTION, tokens), tokens, []
        for i, size in zip(order, sizes, strict=True):
            if size <= room:
                wanted.append(i)
                room -= size
        assert len(memory.soft) <= tokens
        assert memory.ids == laconic.Memory.joined([bank._memory(bank.texts[i]) for i in wanted]).ids
    assert memory.ids == bank.memory(QUESTION, 4).ids
    with pytest.raises(laconic.BudgetError, match="tokens=0: none of the 4 memories fits"):
        bank.within(QUESTION, 0)


def test_bad_input(bank, world, spec):
    with pytest.raises(laconic.BudgetError, match="count=5: the bank has 4 texts; ask for 1 to 4"):
        bank.nearest(QUESTION, 5)
    with pytest.raises(laconic.BudgetError, match="count=0"):
        bank.memory(QUESTION, 0)
    with pytest.raises(PromptError, match="without a token"):
        bank.add([""])
    with pytest.raises(TypeError, match="snapkv makes no memories"):
        laconic.Bank(*world, "snapkv:keep=0.5")
    one = bank.memory(QUESTION, 1)
    other = laconic.Memory(one.soft, one.ids, one.method, {**one.facts, "artifact": "other"})
    with pytest.raises(laconic.ConflictError, match="different artifact"):
        laconic.Memory.joined([one, other])
