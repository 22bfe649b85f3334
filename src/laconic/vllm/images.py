"""An image whose visual tokens were pruned before the decoder, as a prompt of vLLM (`--enable-mm-embeds`).

vLLM puts as many placeholders into a prompt as it is given features, and counts positions without gaps: what it runs is the
stream of a laconic session whose methods renumber positions.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel

from laconic.errors import ConflictError
from laconic.families import family_of
from laconic.families.vision import vision_family_of
from laconic.method import Method
from laconic.prompts import media
from laconic.prompts.inputs import on_device
from laconic.session import Session
from laconic.specs import methods_of
from laconic.stream.contract import TokenMethod
from laconic.vllm.soft import check_one_position


class _Read(Exception):
    """The decoder's input is known; it need not run.

    Attributes:
        embeddings: of the tokens that go on, [n, d]; `tokens`: which ones of the prompt they are, [n].
    """

    def __init__(self, embeddings: Tensor, tokens: Tensor):
        super().__init__()
        self.embeddings, self.tokens = embeddings, tokens


def image_prompt(
    model: PreTrainedModel,
    processor: Any,
    image: Image.Image,
    question: str,
    method: Method | str,
    *,
    context: str = "",
    **parts: Any,
) -> dict[str, Any]:
    """A prompt of an image and a question for `LLM.generate`, with the visual tokens that a method keeps or makes.

    Args:
        method: acts before the decoder's first layer. The stock model and processor run here, the decoder does not.
        context: text before the question; `parts`: ``answer_prefix=``, ``system=``.

    Returns:
        ``{"prompt_token_ids": ids with one placeholder, "multi_modal_data": {"image": features [1, k, d]}}``, on the CPU.

    Raises:
        ConflictError: the method acts inside the decoder, or on something else than visual tokens.
        UnsupportedModelError: tokens of this model have several positions each (M-RoPE).
    """
    (chosen,) = methods_of([method])
    check_one_position(model)
    stack = family_of(model).stack(model)
    _check(chosen, len(stack.layers))  # type: ignore[arg-type]
    prompt = media.build(processor, [image], context, question, **parts)
    ids = torch.tensor([prompt.ids], device=model.device)
    given = on_device(model, prompt.inputs, len(prompt.ids))
    with Session(model, [chosen]) as session, torch.inference_mode():

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert session.cache is not None and session.cache.step is not None
            raise _Read(kwargs["inputs_embeds"][0], session.cache.step.token_index(1)[0].long())

        handle = stack.register_forward_pre_hook(stop, with_kwargs=True)  # after the session's own, which shortens
        try:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), **given)
        except _Read as read:
            embeddings, tokens = read.embeddings, read.tokens
        finally:
            handle.remove()
    placeholder = vision_family_of(model).token_id(model, "image")
    shown = ids[0, tokens] == placeholder
    features = embeddings[shown][None].to("cpu", copy=True)
    first = prompt.ids.index(placeholder)
    plain = [token for i, token in enumerate(prompt.ids) if token != placeholder or i == first]
    return {"prompt_token_ids": plain, "multi_modal_data": {"image": features}}


def _check(method: Method, depth: int) -> None:
    if not isinstance(method, TokenMethod):
        raise ConflictError(f"{method.name} does not act on visual tokens; use a method of the site tokens or encoder.")
    if method.rewrites_text:
        raise ConflictError(
            f"{method.name} changes the embeddings of the text, which vLLM makes of token ids itself; serve the model with "
            "`laconic serve`."
        )
    if inside := sorted(layer for layer in method.cuts(depth) if layer):
        raise ConflictError(
            f"{method.name} removes visual tokens before layer {inside[0]}, inside the model, where vLLM has no place for "
            "it; use a method that removes them before the first layer, or serve the model with `laconic serve`."
        )
