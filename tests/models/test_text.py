from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.text import TextEncoder, load_encoder, load_tokenizer
from tests.models.parts import PROMPTS, TEXT_WIDTH, make_text_encoder, make_tokenizer, save_text_parts


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
    assert not torch.equal(plain.text[:, 1], plain.text[:, 2]), "the words must differ for this test to tell"


def test_cuts_after_max_tokens_and_keeps_the_end(encoder: TextEncoder) -> None:
    condition = encoder.encode(["red " * 50])
    assert condition.text is not None
    assert condition.text.shape[1] == 12
    assert encoder.tokenizer("red " * 50, truncation=True, max_length=12)["input_ids"][-1] == 1


def test_the_empty_prompt_is_its_end_token(encoder: TextEncoder) -> None:
    condition = encoder.encode([""])
    assert condition.text is not None
    assert condition.text.shape == (1, 1, TEXT_WIDTH)


@torch.no_grad()
def test_encode_cut_keeps_padding_as_the_published_pipeline(encoder: TextEncoder) -> None:
    tokens = encoder.tokenizer([PROMPTS[2]], padding="max_length", max_length=12, return_tensors="pt")
    expected = encoder.encoder(**{k: tokens[k] for k in ("input_ids", "attention_mask")}).last_hidden_state[:, :7]
    condition = encoder.encode_cut(PROMPTS[2], num_tokens=7)
    assert condition.text is not None
    torch.testing.assert_close(condition.text, expected)
    assert condition.mask().all()


def test_refuses_no_prompt_and_prompts_without_tokens(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        encoder.encode([])
    encoder.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="no token of ' '"):
        encoder.encode(["red", " "])


def test_loads_from_folders_in_the_dtype_asked_for(tmp_path: Path) -> None:
    save_text_parts(tmp_path)
    folders = (tmp_path / "text_encoder", tmp_path / "tokenizer")
    loaded = TextEncoder.load(*folders, 12, "cpu", torch.float32)
    made = TextEncoder(make_tokenizer(), make_text_encoder(), 12)
    assert loaded.width == TEXT_WIDTH
    assert torch.equal(loaded.encode(PROMPTS).text, made.encode(PROMPTS).text)
    assert TextEncoder.load(*folders, 12, "cpu", torch.bfloat16).encoder.dtype == torch.bfloat16
    # T5 overflows in float16.
    assert TextEncoder.load(*folders, 12, "cpu", torch.float16).encoder.dtype == torch.bfloat16


def test_refuses_folders_that_hold_neither(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_encoder(tmp_path, torch.float32)
    with pytest.raises(ValueError, match="does not exist"):
        load_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="cannot read a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"no such model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(ValueError, match="pip install sentencepiece protobuf"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("encoder.final_layer_norm.weight"), r"missing: encoder\.final_layer_norm\.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda state: state.update({"encoder.final_layer_norm.weight": torch.zeros(3)}),
            rf"mis-shaped: encoder\.final_layer_norm\.weight is \(3,\) instead of \({TEXT_WIDTH},\)",
        ),
    ],
)
def test_names_wrong_weights(tmp_path: Path, change: object, message: str) -> None:
    save_text_parts(tmp_path)
    file = tmp_path / "text_encoder" / "model.safetensors"
    state = load_file(file)
    change(state)  # type: ignore[operator]
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_encoder(tmp_path / "text_encoder", torch.float32)
