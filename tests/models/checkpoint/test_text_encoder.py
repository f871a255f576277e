import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from models.checkpoint.text_encoder import load_encoder, load_text_encoder, save_text_encoder
from models.checkpoint.tokenizer import load_tokenizer
from models.text import TextEncoder
from tests.models.parts import PROMPTS, TEXT_WIDTH, make_text_encoder, make_tokenizer, save_text_parts


def test_loads_from_folders_in_the_dtype_asked_for(tmp_path: Path) -> None:
    save_text_parts(tmp_path)
    folders = (tmp_path / "text_encoder", tmp_path / "tokenizer")
    loaded = load_text_encoder(*folders, 12, "cpu", torch.float32)
    made = TextEncoder(make_tokenizer(), make_text_encoder(), 12)
    assert loaded.width == TEXT_WIDTH
    assert torch.equal(loaded.encode(PROMPTS).text, made.encode(PROMPTS).text)
    assert load_text_encoder(*folders, 12, "cpu", torch.bfloat16).encoder.dtype == torch.bfloat16
    # T5 overflows in float16.
    assert load_text_encoder(*folders, 12, "cpu", torch.float16).encoder.dtype == torch.bfloat16


def test_refuses_folders_that_hold_neither(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_encoder(tmp_path, torch.float32)
    for folder in (tmp_path, tmp_path / "tokenizer"):
        with pytest.raises(ValueError, match=r"holds no tokenizer: one of tokenizer\.json, spiece\.model is needed$"):
            load_tokenizer(folder)


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
def test_a_broken_tokenizer_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no such model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(ValueError, match=r"(cannot read \S+|is not valid JSON): \S[^\n]*$"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_broken_encoder_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    save_text_parts(tmp_path)
    file = tmp_path / "text_encoder" / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"(cannot read \S+|is not valid JSON): \S[^\n]*$"):
        load_encoder(tmp_path / "text_encoder", torch.float32)


def test_a_sentencepiece_model_alone_is_read_and_saved_as_a_fast_tokenizer(tmp_path: Path) -> None:
    """The published folders of text models hold `spiece.model` and no `tokenizer.json`."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    pieces = train_sentencepiece(PROMPTS)
    (folder / "spiece.model").write_bytes(pieces)
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    expected = SentencePieceProcessor(model_proto=pieces).encode(PROMPTS[1], add_eos=True)
    assert load_tokenizer(folder).encode([PROMPTS[1]], 120)[0].tolist() == [expected]
    save_text_encoder(
        TextEncoder(load_tokenizer(folder), make_text_encoder(), 12), tmp_path / "e", tmp_path / "t", torch.float32
    )
    assert (tmp_path / "t" / "tokenizer.json").is_file()
    assert load_tokenizer(tmp_path / "t").encode([PROMPTS[1]], 120)[0].tolist() == [expected]


def train_sentencepiece(texts: list[str]) -> bytes:
    """A small unigram model with the special pieces of T5."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def test_code_that_a_folder_names_is_not_run(tmp_path: Path) -> None:
    save_text_parts(tmp_path)
    made = tmp_path / "made"
    code = f"import pathlib\npathlib.Path({str(made)!r}).touch()\nclass Tokenizer: pass\n"
    maps = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"], "AutoModel": "evil.Tokenizer"}
    for folder, file in (("tokenizer", "tokenizer_config.json"), ("text_encoder", "config.json")):
        (tmp_path / folder / "evil.py").write_text(code)
        path = tmp_path / folder / file
        settings = {"auto_map": maps, "_attn_implementation": "somebody/kernel"}
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    load_tokenizer(tmp_path / "tokenizer")
    load_encoder(tmp_path / "text_encoder", torch.float32)
    assert not made.exists()


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
