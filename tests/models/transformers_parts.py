"""Our parts as those of transformers, which the tests compare with."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, T5Config, T5EncoderModel

from models.checkpoint.tokenizer import save_tokenizer
from models.t5.encoder import T5Encoder
from models.t5.tokenizer import TextTokenizer


def as_transformers(encoder: T5Encoder) -> Any:
    """transformers' encoder of the same settings, with copies of the same weights."""
    settings = encoder.config.to_json(str(encoder.dtype).removeprefix("torch."))
    config = T5Config(**{name: value for name, value in settings.items() if name != "architectures"})
    config._attn_implementation = "sdpa"
    made = T5EncoderModel(config).to(encoder.dtype)
    missing, unexpected = made.load_state_dict(encoder.state_dict(), strict=False)
    assert missing == ["encoder.embed_tokens.weight"]  # another name of `shared.weight`
    assert unexpected == []
    return made.eval()


def as_transformers_tokenizer(tokenizer: TextTokenizer, folder: Path) -> Any:
    """transformers' tokenizer from the files that we write to `folder`."""
    save_tokenizer(tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
