"""A method of your own for visual tokens: the patches whose features have the largest norm go on.

Run: python examples/loud_patches/loud_patches.py
Or install this folder (pip install ./examples/loud_patches), and then: laconic run --method loud_patches --image FILE ...
"""

from dataclasses import dataclass
from pathlib import Path

import torch

import laconic
from laconic.stream.assemble import assemble, choose
from laconic.stream.contract import Cut, Stream


@laconic.register(
    "loud_patches",
    site="tokens",
    modality="image",
    mechanism="pruning",
    source="the worked example of the documentation",
    query_aware=False,
)
@dataclass(kw_only=True)
class LoudPatches(laconic.TokenMethod):
    """Keep the visual tokens of the largest norm, at the input of the decoder."""

    def cut(self, stream: Stream) -> Cut:
        kept = []
        for row in range(len(stream.hidden)):
            at = stream.images(row)
            count = round(self.allowance(len(at), len(stream.texts(row)), stream.entry_bytes))
            kept.append(at[choose(stream.hidden[row, at].norm(dim=-1), count, stream.must(row))])
        return assemble(stream, kept, positions="renumber")


def main() -> None:
    from laconic.media import load_image
    from laconic.prompts import media

    scene = Path(__file__).parents[2] / "docs" / "scene.png"
    model, processor = laconic.load("testbed/vlm")
    prompt = media.build(processor, [load_image(scene)], context="", question="What does the white sign say?")
    ids = torch.tensor([prompt.ids])
    with laconic.compress(model, LoudPatches(keep=0.5)) as session:
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **prompt.inputs, max_new_tokens=8)
    print(processor.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))
    print(f"visual tokens: {session.stats.visual_in:.0f} in the prompt, {session.stats.visual[0]:.0f} in the first layer")


if __name__ == "__main__":
    main()
