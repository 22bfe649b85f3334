"""The engine on every vision class: images through `generate()`, or read before the question, like the stock model."""

import pytest
from helpers.vision_zoo import CASES, IMAGE
from torch.nn.functional import pad

from laconic.cli import engine
from laconic.cli.options import Request
from laconic.method import create_method
from laconic.prompts.text import Prompt


class Numbers:
    """Decodes ids as numbers."""

    pad_token_id = 0

    def decode(self, ids, skip_special_tokens):
        return " ".join(map(str, ids))


def request(**options) -> Request:
    """What the command line would ask."""
    given = dict.fromkeys(("method", "keep", "tokens", "nbytes", "context", "system", "protect", "prefill_chunk_size"))
    given |= dict.fromkeys(("device", "temperature"))
    given |= {"model": "tiny", "question": "", "answer_prefix": "", "max_new_tokens": 5, "dtype": "auto", "seed": 0}
    given |= {"sample": False, "trust_remote_code": False, "query_agnostic": False, "image": ["x.png"]}
    return Request(**given | options)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_neutral_runs_are_the_stock_model(name, agnostic):
    model, case = CASES[name].build(), CASES[name]
    given = case.inputs([[case.image(0), case.image(1)]])
    ids = [*given.pop("input_ids")[0].tolist(), 7, 12, 9]
    given.pop("attention_mask")
    if "mm_token_type_ids" in given:
        given["mm_token_type_ids"] = pad(given["mm_token_type_ids"], (0, 3))
    prompt = Prompt(ids[:-3], ids[-3:], True, "", given)
    asked = request(query_agnostic=agnostic, context="c")
    model.generation_config.suppress_tokens = [IMAGE]
    done = engine.compressed(model, Numbers(), prompt, [create_method("snapkv", keep=1.0)], asked)
    full = engine.stock(model, Numbers(), prompt, asked, done.session)
    assert done.result.ids == full.ids and len(full.ids) == 5
    assert done.result.kv_bytes_prompt == full.kv_bytes_prompt
    assert done.result.encoder_seconds > 0 and full.encoder_seconds > 0
    shown = done.seen.by_layer(done.session)
    assert set(shown.values()) == {len(done.seen.tokens)} and 0 < len(done.seen.tokens) <= ids.count(IMAGE)
