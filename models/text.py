"""From prompts to what the text models are conditioned on, through a T5 encoder.

Shapes: B prompts, L text tokens (of the longest prompt), E width of the encoder's output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging

from models.checkpoint.keys import check_loading_info
from models.conditioning import Condition


class TextEncoder:
    """A tokenizer and a T5 encoder, as the published text-to-video pipeline uses them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoder: T5EncoderModel, max_tokens: int) -> None:
        """`max_tokens` is where longer prompts are cut: 120 for the published models."""
        if max_tokens < 1:
            raise ValueError(f"max_tokens is {max_tokens}: it must be at least 1")
        self.tokenizer = tokenizer
        self.encoder: Any = encoder.train(False).requires_grad_(False)
        self.max_tokens = max_tokens

    @staticmethod
    def load(
        encoder_folder: Path,
        tokenizer_folder: Path,
        max_tokens: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> TextEncoder:
        """Both from local folders of the Hugging Face layout, never from the network.

        T5 was trained in bfloat16 and its activations pass float16's largest number, 65504, so with float16 the encoder
        runs in bfloat16. Raises as `load_encoder` and `load_tokenizer` do.
        """
        encoder_dtype = torch.bfloat16 if dtype == torch.float16 else dtype
        encoder: Any = load_encoder(encoder_folder, encoder_dtype, safetensors_only=True)
        return TextEncoder(load_tokenizer(tokenizer_folder), encoder.to(device), max_tokens)

    def save(self, encoder_folder: Path, tokenizer_folder: Path, dtype: torch.dtype) -> None:
        """Write both as `load` reads them, the encoder's weights in `dtype`. They are narrowed in place."""
        with _no_progress_bar():
            self.encoder.to(dtype).save_pretrained(encoder_folder)
        self.tokenizer.save_pretrained(tokenizer_folder)

    @property
    def width(self) -> int:
        """E."""
        return int(self.encoder.config.d_model)

    def encode(self, prompts: list[str]) -> Condition:
        """The prompts as text (B, L, E) in the encoder's dtype and a mask (B, L), True at real tokens.

        Prompts are lower-cased and stripped, and cut after `max_tokens` tokens. Shorter prompts are padded to the
        longest, not to `max_tokens`: masked tokens change nothing, and cost time. Raises ValueError for no prompt, and
        for a prompt of which the tokenizer makes nothing.
        """
        if not prompts:
            raise ValueError("got no prompt: at least one is needed (it may be the empty string)")
        return self._encode(prompts, padding="longest")

    def encode_cut(self, prompt: str, num_tokens: int) -> Condition:
        """One prompt as text (1, num_tokens, E): encoded with padding, cut to `num_tokens`, and all of it counted real.

        So the published text-to-video sampling treats the negative prompt, with the prompt's number of tokens.
        """
        encoded = self._encode([prompt], padding="max_length")
        assert encoded.text is not None
        text = encoded.text[:, :num_tokens]
        return Condition(text=text, text_mask=torch.ones(text.shape[:2], dtype=torch.bool, device=text.device))

    @torch.no_grad()
    def _encode(self, prompts: list[str], padding: str) -> Condition:
        tokens = self.tokenizer(
            [prompt.lower().strip() for prompt in prompts],
            padding=padding,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.encoder.device)
        mask = tokens["attention_mask"].bool()
        if not mask.any(dim=1).all():
            raise ValueError(f"the tokenizer makes no token of {prompts[int(mask.any(dim=1).int().argmin())]!r}")
        text = self.encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return Condition(text=text, text_mask=mask)


def load_encoder(folder: Path, dtype: torch.dtype, *, safetensors_only: bool = False) -> T5EncoderModel:
    """The T5 encoder of a Hugging Face folder, in `dtype` on the CPU.

    Raises ValueError where `folder` holds none, or where weights are missing, unexpected or mis-shaped, naming them.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a text encoder folder: it has no config.json (Hugging Face layout)")
    encoder_class: Any = T5EncoderModel  # transformers annotates its loading in part
    with _no_progress_bar():
        encoder, info = encoder_class.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True if safetensors_only else None,
            ignore_mismatched_sizes=True,  # reported in `info`, all of them
            output_loading_info=True,
        )
    check_loading_info(folder, info)
    # transformers keeps some weights of a float16 T5 in float32.
    narrowed: T5EncoderModel = encoder.to(dtype)
    return narrowed


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Silence transformers' own bar, which has no place in a server's log."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder. Raises ValueError where `folder` holds none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a tokenizer folder: it does not exist")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"cannot read a tokenizer from {folder}: {error}{_sentencepiece_hint(folder)}") from error
    return tokenizer


def _sentencepiece_hint(folder: Path) -> str:
    """What transformers does not say: it needs two packages for the original file of T5, none for tokenizer.json."""
    if not (folder / "spiece.model").is_file() or (folder / "tokenizer.json").is_file():
        return ""
    return " (reading spiece.model takes `pip install sentencepiece protobuf`, once: the converted folder does not)"
