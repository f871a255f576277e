"""The text encoder folder of a checkpoint (Hugging Face layout): reading and writing."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint.files import check_files
from models.checkpoint.json_file import read_json
from models.checkpoint.keys import build_with_weights
from models.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from models.checkpoint.weights import TRANSFORMERS_FILES, read_folder
from models.t5.config import T5Config
from models.t5.encoder import T5Encoder
from models.text import TextEncoder

# The second name of the token embedding. Encoder and decoder share it.
_EMBEDDING, _EMBEDDING_ALIAS = "shared.weight", "encoder.embed_tokens.weight"
_OTHER_HALF = ("decoder.", "lm_head.")  # of a whole T5 model


def load_text_encoder(
    encoder_folder: Path,
    tokenizer_folder: Path,
    max_tokens: int,
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    offload: bool = False,
) -> TextEncoder:
    """Load both folders (safetensors only) without network access, to compute on `device`.

    With `offload`, the weights wait in CPU memory, and are on `device` during an encoding only.

    With float16 the encoder runs in bfloat16: T5's activations exceed 65504, the largest float16. Raises as
    `load_encoder` and `load_tokenizer` do.
    """
    encoder_dtype = torch.bfloat16 if dtype == torch.float16 else dtype
    encoder = load_encoder(encoder_folder, encoder_dtype, safetensors_only=True)
    tokenizer = load_tokenizer(tokenizer_folder)
    return TextEncoder(tokenizer, encoder if offload else encoder.to(device), max_tokens, torch.device(device))


def save_text_encoder(
    text_encoder: TextEncoder, encoder_folder: Path, tokenizer_folder: Path, dtype: torch.dtype
) -> None:
    """Write both folders as `load_text_encoder` reads them. The encoder's weights are narrowed to `dtype` in place."""
    save_encoder(text_encoder.encoder.to(dtype), encoder_folder)
    save_tokenizer(text_encoder.tokenizer, tokenizer_folder)


def read_encoder_config(folder: Path) -> T5Config:
    """Read the config.json of an encoder folder.

    Raises ValueError if it is missing or broken, and, by name, for settings that are not implemented.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a text encoder folder: it has no config.json (Hugging Face layout)")
    try:
        return T5Config.from_json(read_json(path))
    except ValueError as error:
        raise ValueError(f"cannot use {path}: {error}") from error


def load_encoder(folder: Path, dtype: torch.dtype, *, safetensors_only: bool = False) -> T5Encoder:
    """Load the T5 encoder of a Hugging Face folder in `dtype` to the CPU.

    Raises ValueError if `folder` is not an encoder folder, or, by name, for missing, unexpected or mis-shaped weights.
    """
    config = read_encoder_config(folder)
    check_files(folder)
    state = _encoder_keys(read_folder(folder, TRANSFORMERS_FILES, safetensors_only=safetensors_only))
    return build_with_weights(lambda: T5Encoder(config), state, str(folder), dtype)


def save_encoder(encoder: T5Encoder, folder: Path) -> None:
    """Write an encoder folder that transformers reads, too."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = encoder.config.to_json(str(encoder.dtype).removeprefix("torch."))
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in encoder.state_dict().items()}
    save_file(state, folder / TRANSFORMERS_FILES[0], {"format": "pt"})


def _encoder_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's half of the weights, the embedding under its first name."""
    half = {key: tensor for key, tensor in state.items() if not key.startswith(_OTHER_HALF)}
    alias = half.pop(_EMBEDDING_ALIAS, None)
    if alias is not None:
        half.setdefault(_EMBEDDING, alias)
    return half
