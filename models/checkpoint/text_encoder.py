"""The text encoder and tokenizer folders of a checkpoint (Hugging Face layout): reading and writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging

from models.checkpoint.files import check_files
from models.checkpoint.keys import check_loading_info
from models.checkpoint.reading import reading
from models.text import TextEncoder

_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")


def load_text_encoder(
    encoder_folder: Path, tokenizer_folder: Path, max_tokens: int, device: torch.device | str, dtype: torch.dtype
) -> TextEncoder:
    """Load both folders (safetensors only) without network access.

    With float16 the encoder runs in bfloat16: T5's activations exceed 65504, the largest float16. Raises as
    `load_encoder` and `load_tokenizer` do.
    """
    encoder_dtype = torch.bfloat16 if dtype == torch.float16 else dtype
    encoder: Any = load_encoder(encoder_folder, encoder_dtype, safetensors_only=True)
    return TextEncoder(load_tokenizer(tokenizer_folder), encoder.to(device), max_tokens)


def save_text_encoder(
    text_encoder: TextEncoder, encoder_folder: Path, tokenizer_folder: Path, dtype: torch.dtype
) -> None:
    """Write both folders as `load_text_encoder` reads them. The encoder's weights are narrowed to `dtype` in place."""
    with _no_progress_bar():
        text_encoder.encoder.to(dtype).save_pretrained(encoder_folder)
    text_encoder.tokenizer.save_pretrained(tokenizer_folder)


def load_encoder(folder: Path, dtype: torch.dtype, *, safetensors_only: bool = False) -> T5EncoderModel:
    """Load the T5 encoder of a Hugging Face folder in `dtype` to the CPU.

    Raises ValueError if `folder` is not an encoder folder, or, by name, for missing, unexpected or mis-shaped weights.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a text encoder folder: it has no config.json (Hugging Face layout)")
    check_files(folder)
    encoder_class: Any = T5EncoderModel  # transformers annotates its loading in part
    with _no_progress_bar(), reading(folder):
        encoder, info = encoder_class.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation="sdpa",  # a config can name code from elsewhere
            use_safetensors=True if safetensors_only else None,
            ignore_mismatched_sizes=True,  # `info` reports all of them
            output_loading_info=True,
        )
    check_loading_info(folder, info)
    # transformers keeps some weights of a float16 T5 in float32.
    narrowed: T5EncoderModel = encoder.to(dtype)
    return narrowed


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Hide the progress bar of transformers, which would clutter a server's log."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face folder. Raises ValueError if `folder` holds none that can be read."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ValueError(f"{folder} holds no tokenizer: one of {', '.join(_TOKENIZER_FILES)} is needed")
    check_files(folder)
    with reading(folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return tokenizer
