"""Tiny VAEs, text encoders and tokenizers of the classes that real checkpoints hold."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.text_encoder import save_encoder
from models.checkpoint.tokenizer import save_tokenizer
from models.t5.config import T5Config
from models.t5.encoder import T5Encoder
from models.t5.tokenizer import TextTokenizer
from training.stages.initialize import initialize_encoder

TEXT_WIDTH = 24
PROMPTS = ["a red circle moving right on a black background", "a blue square spinning", "two stars"]


def make_vae(levels: int = 4, **settings: Any) -> Autoencoder:
    """A VAE of `2 ** (levels - 1)` pixels to a latent position; 8 by default, as the real ones."""
    torch.manual_seed(0)
    config = AutoencoderConfig(block_out_channels=(8,) * levels, norm_num_groups=4, **settings)
    return Autoencoder(config).eval()


def make_temporal_vae() -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(block_out_channels=(32, 32), use_post_quant_conv=False, temporal_decoder=True)
    return Autoencoder(config).eval()


def make_text_encoder(d_model: int = TEXT_WIDTH, feed_forward_proj: str = "gated-gelu") -> T5Encoder:
    torch.manual_seed(0)
    sizes = {"vocab_size": 100, "d_model": d_model, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    encoder = T5Encoder(T5Config(**sizes, feed_forward_proj=feed_forward_proj))
    initialize_encoder(encoder)
    return encoder.eval()


def make_tokenizer() -> TextTokenizer:
    """A word tokenizer that ends every prompt with `</s>`, as T5's does."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=100, special_tokens=["<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(PROMPTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return TextTokenizer(tokenizer, "<pad>")


def save_text_parts(folder: Path) -> None:
    save_encoder(make_text_encoder(), folder / "text_encoder")
    save_tokenizer(make_tokenizer(), folder / "tokenizer")
