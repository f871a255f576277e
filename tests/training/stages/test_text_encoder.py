import json
from pathlib import Path

import pytest
import torch

from models.checkpoint.text_encoder import load_encoder
from models.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from models.t5.tokenizer import TextTokenizer
from training.stages import text_encoder
from training.stages.text_encoder import AttributeReader, new_encoder, read, tokenize
from training.stages.tokenizer import END, MAX_TOKENS, PAD, UNKNOWN, make_tokenizer
from training.world.scenes import ATTRIBUTES


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(make_tokenizer(num_prompts=2000), folder)
    return load_tokenizer(folder)


def ids_of(tokenizer: TextTokenizer, text: str) -> list[int]:
    tokens, _ = tokenizer.encode([text], 512)
    return [int(token) for token in tokens[0]]


def test_the_grammars_words_are_one_token_each_and_the_end_is_marked(tokenizer: TextTokenizer) -> None:
    text = "a large red circle moving right on a black background"
    ids = ids_of(tokenizer, text)
    assert len(ids) == len(text.split()) + 1
    assert ids[-1] == tokenizer.tokenizer.token_to_id(END) == 1
    assert tokenizer.pad_id == tokenizer.tokenizer.token_to_id(PAD) == 0


@pytest.mark.parametrize("text", ["Ein roter Kreis, größer!", "🔴 → 右", "zxqj", "", " "])
def test_any_text_is_encoded_without_loss(tokenizer: TextTokenizer, text: str) -> None:
    ids = ids_of(tokenizer, text)
    assert tokenizer.tokenizer.token_to_id(UNKNOWN) not in ids
    assert tokenizer.tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower().strip()


def test_capital_letters_make_no_difference(tokenizer: TextTokenizer) -> None:
    assert ids_of(tokenizer, "A Red CIRCLE") == ids_of(tokenizer, "a red circle")


def test_long_texts_are_cut(tokenizer: TextTokenizer) -> None:
    tokens, mask = tokenize(tokenizer, ["red " * 100, "red"], torch.device("cpu"))
    assert tokens.shape == mask.shape == (2, MAX_TOKENS)
    assert mask.sum(dim=1).tolist() == [MAX_TOKENS, 2]


def test_padding_does_not_change_the_answer(tokenizer: TextTokenizer) -> None:
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
    encoder = load_encoder(tmp_path / "text_encoder", torch.float32)
    tokens, mask = tokenize(load_tokenizer(tmp_path / "tokenizer"), ["a red dot"], torch.device("cpu"))
    states = encoder(tokens, mask)
    assert states.shape == (1, tokens.shape[1], text_encoder.WIDTH)
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 1_000_000
