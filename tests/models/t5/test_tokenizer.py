"""Our tokenizer against transformers', from the same files."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2
from transformers import AutoTokenizer

from models.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from models.t5.sentencepiece_model import CONTROL, parse_sentencepiece_model
from models.t5.tokenizer import TextTokenizer

SENTENCES = [
    "a red circle moving right on a black background",
    "a blue square spinning, and two stars",
    "Ein größerer roter Kreis \u2013 schön, nicht?",
    "caf\u00e9 au lait \u00bd \ufb01n",
]
TEXTS = [
    "",
    " ",
    "\n\t ",
    "a red circle",
    "  a  red\tcircle \n on\u00a0a\u3000background ",
    "A RED Circle",
    "caf\u00e9 cafe\u0301 \ufb01 \u00bd \u2163 \uff21 \u1e9b\u0323",
    "\U0001f534 \u2192 \u53f3 \u0627\u0644\u0639",
    "\u200b\ufeff\u200d\u00ad x\u0000y\u001fz",
    "a </s> b <pad> <unk> c",
    "<extra_id_0> a<extra_id_1>b <extra_id_99> <extra_id_100>",
    "\u2581a \u2581\u2581 b",
    "red " * 100,
    "x" * 500,
    "\ue000 \ufffd \uffff",
]


@cache
def train_pieces(**options: Any) -> bytes:
    """A small unigram model with the special pieces of T5."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        vocab_size=80,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def write(folder: Path, more: dict[str, Any] | None = None, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(train_pieces(**options))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"} | (more or {})))
    return folder


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no extra ids": {"extra_ids": 0},
    "two extra ids": {"extra_ids": 2, "additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"]},
    "tokens as objects": {"eos_token": {"content": "</s>", "lstrip": False, "__type": "AddedToken"}},
}


@pytest.fixture(scope="module", params=SETTINGS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, Any]:
    folder = write(tmp_path_factory.mktemp("tokenizer"), SETTINGS[request.param])
    return load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("max_tokens", [1, 2, 12, 600])
@pytest.mark.parametrize("pad_to_max", [False, True])
def test_makes_the_tokens_of_transformers(pair: tuple[TextTokenizer, Any], max_tokens: int, pad_to_max: bool) -> None:
    ours, theirs = pair
    for texts in ([text] for text in TEXTS):
        check(ours, theirs, texts, max_tokens, pad_to_max)
    check(ours, theirs, TEXTS, max_tokens, pad_to_max)
    assert len(ours) == len(theirs)


def check(ours: TextTokenizer, theirs: Any, texts: list[str], max_tokens: int, pad_to_max: bool) -> None:
    tokens, mask = ours.encode(texts, max_tokens, pad_to_max=pad_to_max)
    padding = "max_length" if pad_to_max else "longest"
    expected = theirs(texts, padding=padding, truncation=True, max_length=max_tokens, return_tensors="pt")
    assert tokens.tolist() == expected["input_ids"].tolist()
    assert mask.int().tolist() == expected["attention_mask"].tolist()


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(max_size=20) | st.sampled_from(TEXTS), min_size=1, max_size=3))
def test_makes_the_tokens_of_transformers_of_any_text(both: tuple[TextTokenizer, Any], texts: list[str]) -> None:
    check(*both, texts, 16, False)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, Any]:
    folder = write(tmp_path_factory.mktemp("both"))
    return load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)


def test_a_cut_text_keeps_its_end(tmp_path: Path) -> None:
    tokens, mask = load_tokenizer(write(tmp_path)).encode(["red " * 50, ""], 12)
    assert tokens.shape == (2, 12)
    assert tokens[0, -1] == tokens[1, 0] == 1
    assert tokens[1, 1:].tolist() == [0] * 11
    assert mask.sum(dim=1).tolist() == [12, 1]


@pytest.mark.parametrize("options", [{}, {"normalization_rule_name": "identity"}, {"control_symbols": "<a>,<b>"}])
def test_a_saved_tokenizer_makes_the_same_tokens_here_and_in_transformers(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    source = write(tmp_path / "in", **options)
    tokenizer, theirs = load_tokenizer(source), AutoTokenizer.from_pretrained(source)
    tokenizer.encode(["a"], 1)  # leaves its truncation behind
    save_tokenizer(tokenizer, tmp_path / "out")
    again, theirs_again = load_tokenizer(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    for other in (theirs, theirs_again):
        check(tokenizer, other, [*TEXTS, "a <a><b> b"], 40, False)
        check(again, other, [*TEXTS, "a <a><b> b"], 40, False)
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["truncation"] is None


def test_reads_the_tokenizer_file_of_transformers(tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(write(tmp_path / "in"))
    theirs(["a"], truncation=True, max_length=1)
    theirs.save_pretrained(tmp_path / "out")
    check(load_tokenizer(tmp_path / "out"), theirs, TEXTS, 40, False)


def test_pieces_are_those_that_sentencepiece_reads() -> None:
    content = train_pieces(control_symbols="<a>", user_defined_symbols="<b>")
    model = parse_sentencepiece_model(content)
    reader = SentencePieceProcessor(model_proto=content)
    assert len(model.pieces) == reader.get_piece_size()
    for index, piece in enumerate(model.pieces):
        assert piece.text == reader.id_to_piece(index)
        assert piece.score == reader.get_score(index)
        assert (piece.kind == CONTROL) == reader.is_control(index)
    proto = sentencepiece_model_pb2.ModelProto.FromString(content)
    assert model.charsmap == proto.normalizer_spec.precompiled_charsmap
    assert model.algorithm == proto.trainer_spec.model_type
    assert model.unknown_id == proto.trainer_spec.unk_id
    assert model.charsmap


@pytest.mark.parametrize("content", [b"", b"\x0a", b"\xff" * 20, b"hello", b"\x0a\x02\x12\x05", b"\x08\x01"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read \S+spiece\.model: it is not a SentencePiece model[^\n]*$"):
        load_tokenizer(tmp_path)


@given(st.binary(max_size=30))
def test_no_bytes_break_the_reader_of_pieces(content: bytes) -> None:
    try:
        model = parse_sentencepiece_model(content)
    except ValueError:
        return
    assert model.pieces


def test_every_cut_of_a_model_file_is_refused_or_read() -> None:
    content = train_pieces()
    for length in range(0, len(content), 97):
        try:
            parse_sentencepiece_model(content[:length])
        except ValueError as error:
            assert "it is not a SentencePiece model" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"padding_side": "left"}, r"tokenizer_config\.json says padding_side 'left'; only 'right' is supported"),
        ({"truncation_side": "left"}, "says truncation_side 'left'; only 'right' is supported"),
        ({"pad_token": "[PAD]", "extra_ids": 0}, None),
    ],
)
def test_settings_that_change_the_tokens_are_refused_or_followed(
    tmp_path: Path, more: dict[str, Any], message: str | None
) -> None:
    folder = write(tmp_path, more)
    if message is None:
        check(load_tokenizer(folder), AutoTokenizer.from_pretrained(folder), ["a", "a [PAD] red"], 9, False)
        return
    with pytest.raises(ValueError, match=message):
        load_tokenizer(folder)


def test_a_model_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, model_type="bpe")
    with pytest.raises(ValueError, match=r"its model_type is 2; only 1 \(unigram\) is supported"):
        load_tokenizer(folder)


def test_a_tokenizer_without_its_padding_token_is_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path)).tokenizer
    with pytest.raises(ValueError, match=r"the padding token '\[PAD\]' is not in the vocabulary"):
        TextTokenizer(tokenizer, "[PAD]")
