"""Models as users hold them: with adapters, compiled, in parallel wrappers, spread over devices. They work as what is inside
does, or are refused by name, and are as before when a session closes."""

import types

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from torch import nn

import laconic
from laconic import SnapKV, UnsupportedModelError
from laconic.families.wrappers import called_directly, unwrapped

GREEDY = {"max_new_tokens": 4, "do_sample": False}
ASIDE = "torch.compile is set aside"


class Tuner(nn.Module):
    """As PEFT's tuners do, it calls `forward` of the model, past the model's hooks; its class is given that forward."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def generate(self, *args, **kwargs):
        return self.model.generate(*args, **kwargs)


class Base(Tuner):
    def forward(self, *args, **kwargs):
        return self.model.forward(*args, **kwargs)


class LoraModel(Base):
    pass


class AdaLoraModel(Base):
    def forward(self, *args, **kwargs):
        return self.model.forward(*args, **kwargs)


class PeftModel(nn.Module):
    """The outline of a PEFT model."""

    def __init__(self, base, prompt=False, kind="LORA"):
        super().__init__()
        self.base_model = base
        self.active_peft_config = types.SimpleNamespace(
            is_prompt_learning=prompt, peft_type=types.SimpleNamespace(value=kind)
        )
        self.peft_config = {"default": self.active_peft_config}

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)

    def generate(self, *args, **kwargs):
        return self.base_model.generate(*args, **kwargs)


class DistributedDataParallel(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def generate(self, *args, **kwargs):
        return self.module.generate(*args, **kwargs)


def lora(model):
    return PeftModel(LoraModel(model))


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_forward(model):
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def compiled_decoder(model):
    model.model = torch.compile(model.model, backend="eager")
    return model


def compiled_layers(model):
    for i, layer in enumerate(model.model.layers):
        model.model.layers[i] = torch.compile(layer, backend="eager")
    return model


WRAPPED = {
    "lora": lora,
    "parallel": DistributedDataParallel,
    "compiled": compiled,
    "compiled-lora": lambda model: compiled(lora(model)),
    "lora-of-compiled": lambda model: lora(compiled_in_place(model)),
    "compiled-in-place": compiled_in_place,
    "compiled-forward": compiled_forward,
    "compiled-decoder": compiled_decoder,
    "compiled-layers": compiled_layers,
    "device-map": lambda model: dispatch_model(model, {"": "cpu"}, force_hooks=True),
    "offloaded": lambda model: cpu_offload(model, execution_device=torch.device("cpu")),
}


def state(model):
    """What a session might leave behind, by module."""
    return [
        (name, {k: v for k, v in vars(m).items() if k in ("forward", "_compiled_call_impl")}, len(m._forward_hooks))
        for name, m in model.named_modules()
    ]


@pytest.mark.filterwarnings(f"ignore:{ASIDE}")
@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_is_compressed_as_the_model_is(make_llama, prompt, name):
    plain, ids = make_llama(), prompt(1, 40)
    with laconic.compress(plain, SnapKV(keep=0.4, window=4)) as session:
        logits, whole = plain(input_ids=ids).logits, session.stats
        tokens, want = plain.generate(input_ids=ids, **GREEDY), session.stats
    stock = plain.generate(input_ids=ids, **GREEDY)
    model = WRAPPED[name](make_llama())
    before = state(model)
    with laconic.compress(model, SnapKV(keep=0.4, window=4)) as session:
        torch.testing.assert_close(model(input_ids=ids).logits, logits, atol=1e-5, rtol=1e-5)
        assert session.stats.kv_bytes == whole.kv_bytes < whole.kv_bytes_full
        assert torch.equal(model.generate(input_ids=ids, **GREEDY), tokens)
        assert (session.stats.kv_bytes, session.stats.prefill_flops) == (want.kv_bytes, want.prefill_flops)
    assert state(model) == before
    if "compiled" not in name:
        assert torch.equal(model.generate(input_ids=ids, **GREEDY), stock)


def test_a_session_says_that_it_runs_uncompiled(make_llama):
    model = make_llama(layers=2)
    with pytest.warns(UserWarning, match=ASIDE), laconic.compress(compiled_in_place(model)):
        assert model._compiled_call_impl is None
    assert model._compiled_call_impl is not None


def test_nothing_is_said_of_plain_models(make_llama, recwarn):
    with called_directly(make_llama(layers=2)):
        pass
    assert not recwarn


def test_what_was_set_aside_comes_back_after_an_error(make_llama):
    model = lora(make_llama(layers=2))
    before = state(model)
    with pytest.raises(RuntimeError), laconic.compress(model):
        assert state(model) != before
        raise RuntimeError
    assert state(model) == before


def test_wrappers_that_are_refused_by_name(make_llama):
    model = make_llama(layers=2)
    with pytest.raises(UnsupportedModelError, match=r"DataParallel runs copies.*give compress\(\) the model that"):
        laconic.compress(nn.DataParallel(model))
    with pytest.raises(UnsupportedModelError, match="PREFIX_TUNING puts learned tokens before the prompt"):
        laconic.compress(PeftModel(model, prompt=True, kind="PREFIX_TUNING"))
    with pytest.raises(UnsupportedModelError, match=r"AdaLoraModel computes more .* what merge_and_unload\(\)"):
        laconic.compress(PeftModel(AdaLoraModel(model)))


def test_what_is_no_model_at_all(make_llama):
    model = make_llama(layers=2)
    for given, message in (
        ("smollm2", r"got the name 'smollm2'; load it first: model, tokenizer = laconic\.load\('smollm2'\)"),
        ((model, None), r"got a tuple; .* model, tokenizer = laconic\.load"),
        (types.SimpleNamespace(model=model), r"got SimpleNamespace; pass its `\.model`"),
        (None, r"needs a transformers model, got NoneType\."),
        (nn.Linear(2, 2), r"needs a transformers model, got Linear\."),
    ):
        with pytest.raises(UnsupportedModelError, match=message):
            unwrapped(given)


@pytest.mark.parametrize("direct", [True, False])
def test_adapters_of_peft(make_llama, prompt, direct):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False)
    model, ids = peft.get_peft_model(make_llama(), config).eval(), prompt(1, 40)
    run = (lambda: model(input_ids=ids).logits) if direct else lambda: model.generate(input_ids=ids, **GREEDY)
    stock = run()
    with laconic.compress(model, SnapKV(keep=1.0)) as session:
        torch.testing.assert_close(run(), stock, atol=1e-5, rtol=1e-5)
    assert session.model is model.get_base_model() and session.stats.tokens_in == 40
    with laconic.compress(model, SnapKV(keep=0.4, window=4)) as session:
        run()
    assert session.stats.kv_bytes < 0.5 * session.stats.kv_bytes_full
    assert torch.equal(run(), stock)
