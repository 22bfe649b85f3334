"""Images: a question about an image, answered from a quarter of its visual tokens.

Run: python examples/images.py
"""

from pathlib import Path

import torch

import laconic
from laconic.media import load_image
from laconic.prompts import media

SCENE = Path(__file__).parents[1] / "docs" / "scene.png"
QUESTION = "What does the white sign say?"


def main() -> None:
    model, processor = laconic.load("testbed/vlm")  # a model that sees comes with its processor
    prompt = media.build(processor, [load_image(SCENE)], context="", question=QUESTION)
    ids = torch.tensor([prompt.ids])

    with laconic.compress(model, laconic.VisionZip(keep=0.25)) as session:
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **prompt.inputs, max_new_tokens=8)

    print(processor.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    print(f"visual tokens: {session.stats.visual_in:.0f} in the prompt, {session.stats.visual[0]:.0f} in the first layer")


if __name__ == "__main__":
    main()
