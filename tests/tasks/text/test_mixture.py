"""Training chats: of training seeds only, of the asked length, with real tokens supervised."""

import pytest

from laconic.tasks.text.mixture import Mixture
from laconic.tasks.text.retrieval import EVALUATION_SEED

LENGTHS = (128, 512, 1024, 2048)


def test_training_refuses_evaluation_seeds(tokenizer):
    mixture = Mixture(tokenizer)
    with pytest.raises(ValueError, match="reserved for evaluation"):
        mixture.task_chat(EVALUATION_SEED, 512)
    with pytest.raises(ValueError, match="seed=-1"):
        mixture.task_chat(-1, 512)


@pytest.mark.parametrize("tokens", LENGTHS)
def test_training_chats_fit_and_supervise_real_tokens(tokens, tokenizer):
    mixture = Mixture(tokenizer)
    for seed in range(40):
        example = mixture.task_chat(seed, tokens)
        assert len(example.ids) <= tokens
        assert example.targets
        for position, (accepted, weight, _) in example.targets.items():
            assert example.ids[position] in accepted
            assert weight > 0
