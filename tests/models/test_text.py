import pytest
import torch

from models.text import TextEncoder
from tests.models.parts import PROMPTS, TEXT_WIDTH, make_text_encoder, make_tokenizer


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(make_tokenizer(), make_text_encoder(), max_tokens=12)


def test_pads_to_the_longest_and_masks_the_rest(encoder: TextEncoder) -> None:
    condition = encoder.encode([PROMPTS[2], PROMPTS[1]])
    assert condition.text is not None
    assert condition.text_mask is not None
    assert condition.text.shape == (2, 5, TEXT_WIDTH)  # four words and the end
    assert condition.text_mask.tolist() == [[True, True, True, False, False], [True] * 5]
    assert condition.labels is None


def test_a_prompt_means_the_same_in_any_batch(encoder: TextEncoder) -> None:
    alone, together = encoder.encode([PROMPTS[2]]), encoder.encode([PROMPTS[2], PROMPTS[0]])
    assert alone.text is not None
    assert together.text is not None
    torch.testing.assert_close(together.text[:1, :3], alone.text, rtol=1e-5, atol=1e-5)


def test_lower_cases_and_strips(encoder: TextEncoder) -> None:
    plain, dressed = encoder.encode([PROMPTS[1]]), encoder.encode([f"  {PROMPTS[1].upper()}\n"])
    assert plain.text is not None
    assert dressed.text is not None
    assert torch.equal(plain.text, dressed.text)
    assert not torch.equal(plain.text[:, 1], plain.text[:, 2]), "the tokens must differ, or this test proves nothing"


def test_cuts_after_max_tokens_and_keeps_the_end(encoder: TextEncoder) -> None:
    condition = encoder.encode(["red " * 50])
    assert condition.text is not None
    assert condition.text.shape[1] == 12
    tokens, _ = encoder.tokenizer.encode(["red " * 50], 12)
    assert tokens[0, -1] == 1


def test_the_empty_prompt_is_its_end_token(encoder: TextEncoder) -> None:
    condition = encoder.encode([""])
    assert condition.text is not None
    assert condition.text.shape == (1, 1, TEXT_WIDTH)


@torch.no_grad()
def test_encode_cut_keeps_padding_as_the_published_pipeline(encoder: TextEncoder) -> None:
    tokens, mask = encoder.tokenizer.encode([PROMPTS[2]], 12, pad_to_max=True)
    expected = encoder.encoder(tokens, mask)[:, :7]
    condition = encoder.encode_cut(PROMPTS[2], num_tokens=7)
    assert condition.text is not None
    torch.testing.assert_close(condition.text, expected)
    assert condition.mask().all()


def test_a_repeated_prompt_is_encoded_once_and_few_are_remembered(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.text._MAX_REMEMBERED", 2)
    calls = []
    encoder.encoder.register_forward_hook(lambda *_: calls.append(1))
    first = encoder.encode([PROMPTS[0]])
    assert encoder.encode([f" {PROMPTS[0].upper()}"]) is first
    assert encoder.encode_cut(PROMPTS[0], num_tokens=3).text is not None  # padded otherwise, so encoded again
    assert len(calls) == 2
    encoder.encode([PROMPTS[1]])  # the third result takes the place of the first
    assert len(calls) == 3
    again = encoder.encode([PROMPTS[0]])
    assert len(calls) == 4
    assert first.text is not None
    assert again.text is not None
    assert torch.equal(first.text, again.text)


def test_refuses_no_prompt_and_prompts_without_tokens(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        encoder.encode([])
    encoder.tokenizer.tokenizer.post_processor = None
    with pytest.raises(ValueError, match="no token of ''"):
        encoder.encode(["red", " "])


def test_prompts_are_cleaned_where_it_is_asked_for(encoder: TextEncoder) -> None:
    dressed = "<b>A Blue</b> square ***spinning*** http://example.com/x"
    plain, raw = encoder.encode(["a blue square spinning"]), encoder.encode([dressed])
    cleaned = encoder.encode([dressed], clean_caption=True)
    assert plain.text is not None
    assert cleaned.text is not None
    assert raw.text is not None
    assert torch.equal(cleaned.text, plain.text)
    assert raw.text.shape != plain.text.shape
    cut = encoder.encode_cut(dressed, 5, clean_caption=True)
    torch.testing.assert_close(cut.text, plain.text)


def test_a_panic_of_the_tokenizer_is_an_ordinary_error(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object, **__: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(encoder.tokenizer, "encode", panic)
    with pytest.raises(ValueError, match="the tokenizer fails on this prompt: index out of bounds"):
        encoder.encode(["red"])


def test_an_offloaded_encoder_computes_on_its_device_and_its_weights_stay() -> None:
    encoder = TextEncoder(make_tokenizer(), make_text_encoder(), 12, torch.device("meta"))
    condition = encoder.encode([PROMPTS[0]])
    assert encoder.is_offloaded
    assert condition.text is not None
    assert condition.text.device.type == "meta"
    assert condition.mask().device.type == "meta"
    assert {weight.device.type for weight in encoder.encoder.parameters()} == {"cpu"}


def test_an_encoder_with_its_weights_in_place_is_not_offloaded(encoder: TextEncoder) -> None:
    there = TextEncoder(make_tokenizer(), make_text_encoder(), 12, torch.device("cpu"))
    assert not there.is_offloaded
    expected, text = encoder.encode(PROMPTS).text, there.encode(PROMPTS).text
    assert expected is not None
    assert text is not None
    assert torch.equal(text, expected)
