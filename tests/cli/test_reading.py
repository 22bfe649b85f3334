"""The bar counts prompt tokens once per layer, and leaves the model as it was."""

import io

import pytest
import torch
from helpers.bench_tools import tiny
from rich.console import Console

from laconic.cli import reading as module
from laconic.cli.reading import reading


@pytest.fixture
def terminal(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(module, "err", lambda: Console(file=file, force_terminal=True, width=100))
    return file


def hooks(model):
    return [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.model.layers]


def test_the_bar_is_full_when_the_prompt_has_been_read(terminal):
    model, _ = tiny()
    with reading(model, 12, "uncompressed: ") as done, torch.no_grad():
        assert hooks(model) == [2, 1]
        past = model(torch.arange(8)[None]).past_key_values
        model(torch.arange(4)[None], past_key_values=past)
        done()
        assert hooks(model) == [0, 0]
        model(torch.arange(4)[None], past_key_values=past)  # nobody watches
    assert "uncompressed: reading 12 tokens" in terminal.getvalue() and "100%" in terminal.getvalue()


def test_half_of_the_layers_is_half_of_the_bar(terminal):
    model, _ = tiny()
    with reading(model, 12), torch.no_grad():
        handle = model.model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(torch.arange(12)[None])
        handle.remove()
    assert "50%" in terminal.getvalue() and "100%" not in terminal.getvalue()


def test_decoded_tokens_are_counted_in_words(terminal):
    model, _ = tiny()
    with reading(model, 3) as done, torch.no_grad():
        past = model(torch.arange(3)[None]).past_key_values
        model(torch.tensor([[3]]), past_key_values=past)
        done()
    assert "token 2 of the answer" in terminal.getvalue()


def test_nothing_is_shown_or_hooked_where_there_is_no_terminal(capsys):
    model, _ = tiny()
    with reading(model, 3) as done:
        assert hooks(model) == [0, 0]
        done()
    assert capsys.readouterr().err == ""
