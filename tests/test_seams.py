"""Seams: one of each kind per session, opened in order, restored in reverse; and one that the core knows nothing about."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from helpers.session_tools import GREEDY, assert_same_state, state

import laconic
from laconic import ConflictError, Method, SnapKV
from laconic import method as catalogue
from laconic.families import family_of
from laconic.seams import Host, Order, Seam, seams_of


class ScaleSeam(Seam):
    """What a package of its own may bring: scales the decoder's input and output, and writes down what happens."""

    order = Order.LAST
    log: ClassVar[list] = []

    def check(self):
        self.log.append("check")
        for method in self.methods:
            if method.by == 0:
                raise ConflictError("scale: by=0 leaves nothing; choose another number.")

    def prepare(self):
        self.log.append("prepare")
        self.by = sum(method.by for method in self.methods)

    def install(self, restore):
        self.log.append("install")
        embed = self.host.model.get_input_embeddings()
        restore.callback(embed.register_forward_hook(lambda module, args, output: output * self.by).remove)
        restore.callback(self.log.append, "restored")

    def adopt(self, cache):
        self.log.append(("adopt", cache.seen))

    def enter(self, kwargs, step, ids):
        self.log.append(("enter", step.length, tuple(ids.shape)))
        return kwargs

    def leave(self, output, step):
        self.log.append(("leave", step.length))
        return output

    def finish(self, step, cache):
        self.log.append(("finish", step.prefill))

    def stats(self, stats, cache, meter):
        stats.encoder_seconds = 42.0


@dataclass(kw_only=True)
class Scale(Method):
    """Scale embeddings: a method of a site that laconic does not have."""

    by: float = 2.0
    seams = (ScaleSeam,)
    name = "scale"

    def attach(self, model):
        ScaleSeam.log.append("attach")


@pytest.fixture(autouse=True)
def log():
    ScaleSeam.log.clear()
    return ScaleSeam.log


def test_a_seam_of_another_package_needs_no_edit_here(make_llama, prompt, log):
    model, ids = make_llama(), prompt(1, 12)
    before = state(model)
    embeds = 5 * model.get_input_embeddings()(ids)
    want = model(inputs_embeds=embeds).logits
    with laconic.compress(model, Scale(), SnapKV(keep=0.5), Scale(by=3.0)) as session:
        got = model(ids).logits
        model(ids[:, :1], past_key_values=session.cache)
        assert session.stats.entries == [7.0] * 4 and session.stats.encoder_seconds == 42.0
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert log == [
        *["check", "attach", "attach", "prepare", "install"],
        *[("adopt", 0), ("enter", 12, (1, 12)), ("leave", 12), ("finish", True)],
        *[("adopt", 12), ("enter", 1, (1, 1)), ("leave", 1), ("finish", False)],
        "restored",
    ]
    assert_same_state(model, before)


def test_a_site_of_another_package_enters_the_catalogue(llama, prompt, monkeypatch):
    monkeypatch.setattr(catalogue, "_ADDED_SITES", [])
    monkeypatch.setattr(catalogue, "CATALOGUE", dict(catalogue.CATALOGUE))
    about = {"mechanism": "scaling", "source": "this test", "query_aware": False}
    with pytest.raises(ValueError, match=r"site='loudness' of method 'louder': .* add yours with laconic\.method\.add_site"):
        laconic.register("louder", site="loudness", **about)
    for _ in range(2):
        catalogue.add_site("loudness")
    laconic.register("louder", site="loudness", **about)(Scale)
    assert laconic.list_methods()[-1].name == "louder" and catalogue.sites().count("loudness") == 1
    with laconic.compress(llama, laconic.create_method("louder:by=3")):
        llama(prompt(1, 4))
    with pytest.raises(ValueError, match="site 'Two words' must be lower-case"):
        catalogue.add_site("Two words")


def test_seams_leave_in_reverse_order(llama, prompt, log):
    """What the last one did to the pass is undone first."""

    class Inner(ScaleSeam):
        order = Order.LAST + 1

        def enter(self, kwargs, step, ids):
            self.log.append("inner enters")
            return kwargs

        def leave(self, output, step):
            self.log.append("inner leaves")
            return output

    @dataclass(kw_only=True)
    class Within(Scale):
        seams = (Inner,)
        name = "within"

    with laconic.compress(llama, Within(), Scale()):
        llama(prompt(1, 4))
    assert [x for x in log if "inner" in x or x[0] in ("enter", "leave")] == [
        *[("enter", 4, (1, 4)), "inner enters", "inner leaves", ("leave", 4)]
    ]


def test_it_may_refuse_before_any_method_loads_anything(llama, log):
    with pytest.raises(ConflictError, match="by=0 leaves nothing"):
        laconic.compress(llama, Scale(by=0))
    assert log == ["check"]


def test_restored_when_a_later_seam_fails_to_open(make_llama, log):
    class Fails(Seam):
        order = Order.LAST + 1

        def install(self, restore):
            raise RuntimeError("cannot open")

    @dataclass(kw_only=True)
    class Failing(Method):
        seams = (Fails,)

    model = make_llama()
    before = state(model)
    session = laconic.compress(model, Failing(), Scale())
    with pytest.raises(RuntimeError, match="cannot open"), session:
        pass
    assert log[-2:] == ["install", "restored"]
    assert_same_state(model, before)


def test_a_call_that_fails_leaves_out_what_follows(make_llama, prompt, log):
    class Breaks(SnapKV):
        def score(self, obs):
            raise ZeroDivisionError

    model = make_llama()
    with laconic.compress(model, Scale(), Breaks(keep=0.5)), pytest.raises(ZeroDivisionError):
        model(prompt(1, 12))
    assert log[-2:] == [("enter", 12, (1, 12)), "restored"]


def test_one_seam_of_each_kind_in_order(llama):
    class First(Seam):
        order = Order.WEIGHTS

    class Second(Seam):
        order = Order.STREAM

    class Two(Method):
        seams = (Second, First)

    class One(Method):
        seams = (Second,)

    methods = (One(), Two(), One())
    found = seams_of(Host(llama, llama.model, family_of(llama), methods), (ScaleSeam,))
    assert [type(seam) for seam in found] == [First, Second, ScaleSeam]
    assert [seam.methods for seam in found] == [methods[1:2], methods, ()]


def test_a_seam_for_one_method_refuses_two_whatever_they_claim(llama):
    class Unclaimed(SnapKV):
        claims = frozenset()

    with pytest.raises(ConflictError, match="snapkv and snapkv both act through EntriesSeam, which takes one method"):
        laconic.compress(llama, SnapKV(keep=0.5), Unclaimed(keep=0.5))


def test_hooks_by_default_change_nothing(llama, prompt):
    class Idle(Method):
        seams = (Seam,)

    ids = prompt(1, 12)
    with laconic.compress(llama) as plain:
        stock = llama.generate(ids, **GREEDY)
    with laconic.compress(llama, Idle()) as session:
        assert torch.equal(llama.generate(ids, **GREEDY), stock)
    assert session.stats.prefill_flops == plain.stats.prefill_flops and session.stats.asked == 1.0
