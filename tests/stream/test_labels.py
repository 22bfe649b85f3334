"""`labels=` where the stream is shortened: the loss over the tokens that are left, or an error that names the method."""

import pytest
import torch
from helpers.threads import in_threads, meeting
from helpers.vision_tools import IMAGE, inputs, laconic_hooks
from torch.nn.functional import cross_entropy

import laconic
from laconic.errors import SessionError


def with_labels(given):
    """Text is to be predicted; images and padding are not."""
    ids = given["input_ids"]
    return ids.masked_fill((ids == IMAGE) | (given["attention_mask"] == 0), -100)


def by_hand(session, logits, labels):
    """Pair by pair: every token that the last layer has predicts the next one that it has."""
    losses = []
    for row in range(len(labels)):
        kept = session.kept(session.cache.layer_ids[-1], row=row).tolist()
        own = logits[row, -len(kept) :]
        for at, after in enumerate(kept[1:]):
            if labels[row, after] != -100:
                losses.append(cross_entropy(own[at].float(), labels[row, after]))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("spec", ["divprune", "fastv", "random_visual:layer=3", "visionzip"])
def test_the_loss_is_over_the_tokens_that_are_left(vlm, spec):
    given = inputs([(3, 9), (8, 4)])
    labels = with_labels(given)
    with torch.no_grad(), laconic.compress(vlm, laconic.create_method(spec, keep=0.5)) as session:
        found = vlm(**given, labels=labels)
        expected = by_hand(session, found.logits, labels)
    assert found.logits.shape[1] < labels.shape[1] and next(iter(found)) == "loss"
    torch.testing.assert_close(found.loss, expected, atol=1e-5, rtol=1e-5)
    assert laconic_hooks(vlm) == []


def test_all_text_targets_remain(vlm):
    """As many terms as without a method: their sum over `num_items_in_batch` is the mean times the share of terms."""
    given = inputs([(3, 9)])
    labels = with_labels(given)
    terms = int((labels[:, 1:] != -100).sum())
    with torch.no_grad(), laconic.compress(vlm, laconic.create_method("divprune", keep=0.5)):
        mean, divided = vlm(**given, labels=labels).loss, vlm(**given, labels=labels, num_items_in_batch=10).loss
    torch.testing.assert_close(divided * 10, mean * terms)


def test_what_shortens_nothing_leaves_the_models_own_loss(vlm):
    given = inputs([(3, 9), (8, 4)])
    labels = with_labels(given)
    with torch.no_grad():
        want = vlm(**given, labels=labels).loss
        text = {"input_ids": given["input_ids"][:, -4:], "labels": given["input_ids"][:, -4:]}
        alone = vlm(**text).loss
        for keep in (1.0, 0.5):
            with laconic.compress(vlm, laconic.create_method("divprune", keep=keep)):
                torch.testing.assert_close(vlm(**text).loss, alone)
                if keep == 1:
                    torch.testing.assert_close(vlm(**given, labels=labels).loss, want)


def test_tuples_and_gradients(vlm):
    given = inputs([(3, 9)])
    pixels = given["pixel_values"].requires_grad_()
    with laconic.compress(vlm, laconic.create_method("divprune", keep=0.5)):
        found = vlm(**given, labels=with_labels(given), return_dict=False)
        assert isinstance(found, tuple) and found[0].ndim == 0 and found[1].ndim == 3
        found[0].backward()
    assert float(pixels.grad.abs().sum()) > 0


def test_methods_that_drop_text_refuse_labels(llama, prompt):
    ids = prompt(1, 60)
    method = laconic.create_method("fastkv:tsp_layer=2,tsp_rate=0.5", keep=0.5)
    with torch.no_grad(), laconic.compress(llama, method):
        with pytest.raises(SessionError, match=r"labels=: fastkv drops text between the layers"):
            llama(ids, labels=ids)
        assert llama(ids).logits is not None


def test_threads_have_labels_of_their_own(vlm):
    """They meet in the decoder, when the labels of both calls have been taken away and neither loss is computed."""
    given = [inputs([(3, 9)]), inputs([(8, 6)], seed=1)]
    with laconic.compress(vlm, laconic.RandomVisual(keep=0.5)):

        def work(one):
            return vlm(**one, labels=one["input_ids"]).loss.item()

        alone = [work(one) for one in given]
        with meeting(vlm.model.language_model.layers[1], passes=1):
            assert in_threads(*[lambda one=one: work(one) for one in given]) == alone
