"""The fit of TriAttention: means of queries before RoPE."""

import torch
from helpers.tri_tools import artifact

from laconic.fit.find import find_fit
from laconic.fit.passages import passage_ids
from laconic.fit.trainer import Trainer
from laconic.methods.cache.triattention.fit import TriAttentionFit


class Letters:
    """One token per character."""

    def encode(self, text, add_special_tokens):
        return [1 + ord(letter) % 96 for letter in text]


def test_it_measures_the_queries_before_rope(llama):
    fit = TriAttentionFit(tokens=50, passes=2)
    found = Trainer(fit, llama, Letters()).run()
    assert find_fit("triattention") is TriAttentionFit and found.kind == "measured" and found.data["tokens"] == 100
    for layer in (0, 3):
        seen = []
        hook = llama.model.layers[layer].self_attn.q_proj.register_forward_hook(lambda m, a, out, s=seen: s.append(out[0]))
        for number in range(2):
            llama(torch.tensor([passage_ids(Letters(), 50, f"0-{number}")]))
        hook.remove()
        queries = torch.cat(seen).view(100, 4, 8)
        torch.testing.assert_close(found.tensors["centre"][layer], queries.mean(0), atol=1e-4, rtol=1e-4)
        lengths = torch.complex(queries[..., :4], queries[..., 4:]).abs()
        torch.testing.assert_close(found.tensors["size"][layer], lengths.mean(0), atol=1e-4, rtol=1e-4)


def test_the_artifact_of_the_tests_has_the_shapes_of_the_fit(llama, tmp_path):
    found = Trainer(TriAttentionFit(tokens=20, passes=1), llama, Letters()).run()
    _, centre, size = artifact(llama, tmp_path)
    assert found.tensors["centre"].shape == centre.shape and found.tensors["size"].shape == size.shape
