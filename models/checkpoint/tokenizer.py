"""The tokenizer folder of a checkpoint (Hugging Face layout): reading and writing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from models.checkpoint.files import check_files
from models.checkpoint.json_file import read_json
from models.checkpoint.reading import reading
from models.t5.sentencepiece_model import parse_sentencepiece_model
from models.t5.tokenizer import TextTokenizer, add_special_tokens, t5_tokenizer

_WHOLE, _PIECES, _SETTINGS, _OLD_SETTINGS = (
    "tokenizer.json",
    "spiece.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
_EXTRA_IDS = 100
_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_OTHER_SPECIAL = ("bos_token", "sep_token", "cls_token", "mask_token")
_SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FIXED = {"padding_side": "right", "truncation_side": "right"}


def load_tokenizer(folder: Path) -> TextTokenizer:
    """Load the tokenizer of a Hugging Face folder: `tokenizer.json`, or else T5's `spiece.model`. No code is run.

    Raises ValueError if `folder` holds none that can be read, and, by name, for settings that are not implemented.
    """
    whole, pieces = folder / _WHOLE, folder / _PIECES
    if not whole.is_file() and not pieces.is_file():
        raise ValueError(f"{folder} holds no tokenizer: one of {_WHOLE}, {_PIECES} is needed")
    check_files(folder)
    settings: dict[str, Any] = {}
    for name in (_OLD_SETTINGS, _SETTINGS):
        settings |= read_json(folder / name) if (folder / name).is_file() else {}
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{folder / _SETTINGS} says {name} {settings[name]!r}; only {value!r} is supported")
    with reading(whole if whole.is_file() else pieces):
        tokenizer = Tokenizer.from_file(str(whole)) if whole.is_file() else _from_pieces(pieces, settings)
        add_special_tokens(tokenizer, list(_special_tokens(settings)))
        return TextTokenizer(tokenizer, _text(settings.get("pad_token")) or _SPECIAL["pad_token"])


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> None:
    """Write a tokenizer folder that transformers reads, too."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.tokenizer.no_truncation()
    tokenizer.tokenizer.save(str(folder / _WHOLE))
    known = {name: text for name, text in _SPECIAL.items() if tokenizer.tokenizer.token_to_id(text) is not None}
    settings = {
        "clean_up_tokenization_spaces": False,
        **known,
        "pad_token": tokenizer.pad_token,
        "padding_side": "right",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")


def _from_pieces(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    model = parse_sentencepiece_model(path.read_bytes())
    special = [_text(settings.get(name)) or text for name, text in _SPECIAL.items()]
    return t5_tokenizer(
        model, settings.get("extra_ids", _EXTRA_IDS), special, _text(settings.get("eos_token")) or _SPECIAL["eos_token"]
    )


def _special_tokens(settings: Mapping[str, Any]) -> Iterator[str]:
    for name in (*_SPECIAL, *_OTHER_SPECIAL):
        if text := _text(settings.get(name)):
            yield text
    for name in _SPECIAL_LISTS:
        tokens = settings.get(name)
        yield from filter(None, map(_text, tokens if isinstance(tokens, list) else ()))


def _text(token: Any) -> str | None:
    """A token is written as its text, or as an object with its text."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None
