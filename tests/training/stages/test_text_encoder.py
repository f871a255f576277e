import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

from training.stages import text_encoder
from training.stages.text_encoder import AttributeReader, new_encoder, read, tokenize
from training.stages.tokenizer import MAX_TOKENS, make_tokenizer, save_tokenizer
from training.world.scenes import ATTRIBUTES


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(make_tokenizer(num_prompts=2000), folder)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


def test_the_grammars_words_are_one_token_each_and_the_end_is_marked(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "a large red circle moving right on a black background"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.split()) + 1
    assert ids[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.pad_token_id == 0


@pytest.mark.parametrize("text", ["Ein roter Kreis, größer!", "🔴 → 右", "zxqj", "", " "])
def test_any_text_is_encoded_without_loss(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower().strip()


def test_capital_letters_make_no_difference(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("A Red CIRCLE")["input_ids"] == tokenizer("a red circle")["input_ids"]


def test_long_texts_are_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens, mask = tokenize(tokenizer, ["red " * 100, "red"], torch.device("cpu"))
    assert tokens.shape == mask.shape == (2, MAX_TOKENS)
    assert mask.sum(dim=1).tolist() == [MAX_TOKENS, 2]


def test_padding_does_not_change_the_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    reader = AttributeReader(new_encoder(len(tokenizer))).eval()
    text = "a blue star spinning"
    with torch.no_grad():
        alone = reader(*tokenize(tokenizer, [text], torch.device("cpu")))
        padded = reader(*tokenize(tokenizer, [text, f"{text} {text} {text}"], torch.device("cpu")))
    for one, two in zip(alone, padded, strict=True):
        assert torch.allclose(one[0], two[0], atol=1e-5)
    assert len(read(reader, tokenizer, [text])[0]) == len(ATTRIBUTES)


def test_training_leaves_folders_that_load(tmp_path: Path) -> None:
    report = text_encoder.run(tmp_path, torch.device("cpu"), steps=4, batch=8, num_measured=64)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"training wordings", "held-out wordings"}
    encoder = T5EncoderModel.from_pretrained(tmp_path / "text_encoder")
    tokens, mask = tokenize(AutoTokenizer.from_pretrained(tmp_path / "tokenizer"), ["a red dot"], torch.device("cpu"))
    states = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
    assert states.shape == (1, tokens.shape[1], text_encoder.WIDTH)
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 1_000_000
