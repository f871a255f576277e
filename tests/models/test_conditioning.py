"""Conditions: rows put together, and checked against a model."""

import pytest
import torch

from models.conditioning import Condition
from models.config import Conditioning
from tests.models.transformers import NUM_CLASSES, TEXT_WIDTH, make_config


def test_concat_of_labels() -> None:
    joined = Condition.concat([Condition(labels=torch.tensor([1, 2])), Condition(labels=torch.tensor([0]))])
    assert joined.labels is not None
    assert joined.labels.tolist() == [1, 2, 0]
    assert joined.text is None


def test_concat_of_nothing() -> None:
    assert Condition.concat([Condition(), Condition()]) == Condition()


def test_concat_pads_texts_and_says_where() -> None:
    long, short = torch.randn(1, 3, 5), torch.randn(2, 2, 5)
    masked = torch.tensor([[True, True], [True, False]])
    joined = Condition.concat([Condition(text=long), Condition(text=short, text_mask=masked)])
    assert joined.text is not None
    assert joined.text.shape == (3, 3, 5)
    assert joined.text[0].equal(long[0])
    assert joined.text[1:, :2].equal(short)
    assert joined.text[1:, 2].eq(0).all()
    assert joined.mask().tolist() == [[True, True, True], [True, True, False], [True, False, False]]


def test_without_a_mask_every_token_is_real() -> None:
    assert Condition(text=torch.zeros(2, 3, 5)).mask().tolist() == [[True] * 3] * 2


def test_numbers_in_a_mask_become_truth() -> None:
    condition = Condition(text=torch.zeros(1, 2, 5), text_mask=torch.tensor([[1, 0]]))
    assert condition.mask().tolist() == [[True, False]]


def test_to_converts_the_text_alone() -> None:
    condition = Condition(text=torch.zeros(1, 2, 5), text_mask=torch.tensor([[True, False]]))
    moved = condition.to("cpu", torch.bfloat16)
    assert moved.text is not None
    assert moved.text_mask is not None
    assert (moved.text.dtype, moved.text_mask.dtype) == (torch.bfloat16, torch.bool)
    labels = Condition(labels=torch.tensor([1])).to("cpu", torch.bfloat16).labels
    assert labels is not None
    assert labels.dtype == torch.int64


TEXT = torch.zeros(2, 3, TEXT_WIDTH)


@pytest.mark.parametrize(
    ("conditioning", "condition", "message"),
    [
        (Conditioning.CLASS, Condition(), r"got no labels: .* one class label per sample, shape \(2,\)"),
        (Conditioning.CLASS, Condition(labels=torch.tensor([1])), r"labels of shape \(1,\)"),
        (Conditioning.CLASS, Condition(labels=torch.tensor([0, -1])), r"\[0, -1\]: this checkpoint takes classes 0..2"),
        (Conditioning.CLASS, Condition(labels=torch.tensor([0, NUM_CLASSES + 1])), "and 3 for none"),
        (Conditioning.CLASS, Condition(labels=torch.tensor([0, 1]), text=TEXT), "got text, .* conditioned on class"),
        (Conditioning.NONE, Condition(labels=torch.tensor([0, 1])), "got class labels, .* conditioned on none"),
        (Conditioning.NONE, Condition(text=TEXT), "got text, .* conditioned on none"),
        (Conditioning.TEXT, Condition(labels=torch.tensor([0, 1])), "got class labels, .* conditioned on text"),
        (Conditioning.TEXT, Condition(), r"got no text: .* encoded text of shape \(2, tokens, 12\)"),
        (Conditioning.TEXT, Condition(text=TEXT[:1]), r"text of shape \(1, 3, 12\)"),
        (Conditioning.TEXT, Condition(text=TEXT[..., :5]), r"text of shape \(2, 3, 5\)"),
        (Conditioning.TEXT, Condition(text=TEXT[0]), r"text of shape \(3, 12\)"),
        (
            Conditioning.TEXT,
            Condition(text=TEXT, text_mask=torch.ones(2, 4, dtype=torch.bool)),
            r"text mask of shape \(2, 4\) for text of \(2, 3\)",
        ),
    ],
)
def test_check_names_the_fault(conditioning: Conditioning, condition: Condition, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condition.check(make_config(conditioning), rows=2)


def test_the_null_class_is_a_label() -> None:
    Condition(labels=torch.tensor([0, NUM_CLASSES])).check(make_config(), rows=2)
