"""Parameters as plain numbers, of models that were loaded in other ways."""

import torch
from accelerate import cpu_offload
from torch import nn

from laconic.artifact import fingerprint
from laconic.bench.fingerprint import fingerprint as short
from laconic.families.parameters import plain_parameters


class Packed(torch.Tensor):
    """A tensor class of its own, as torchao's: it stands for other numbers than it holds, and takes no views."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.flatten:
            raise NotImplementedError(func)
        return super().__torch_function__(func, types, args, kwargs or {})

    def dequantize(self):
        return self.as_subclass(torch.Tensor) * 2


def test_plain_models_give_what_they_hold(make_llama):
    model = make_llama(layers=2)
    for (name, values), (known, weight) in zip(plain_parameters(model), model.named_parameters(), strict=True):
        assert name == known and values.data_ptr() == weight.data_ptr() and not values.requires_grad


def test_offloaded_weights_have_their_fingerprint(make_llama):
    model = make_llama(layers=2)
    known = fingerprint(model), short(model)
    offloaded = cpu_offload(make_llama(layers=2), execution_device=torch.device("cpu"))
    assert all(weight.is_meta for weight in offloaded.parameters())
    assert (fingerprint(offloaded), short(offloaded)) == known
    assert all(weight.is_meta for weight in offloaded.parameters())


def test_tensor_classes_are_read_as_the_numbers_they_stand_for():
    plain, packed = nn.Linear(3, 2), nn.Linear(3, 2)
    packed.weight = nn.Parameter((plain.weight.detach() / 2).as_subclass(Packed), requires_grad=False)
    packed.bias = plain.bias
    assert fingerprint(packed) == fingerprint(plain) and short(packed) == short(plain)
