"""The text encoder of the four designs: a small T5 encoder that reads the fast world's prompts, as in the demos."""

import json
import random
from pathlib import Path

import torch

from models.checkpoint.text_encoder import save_encoder
from models.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from models.t5.config import T5Config
from models.t5.encoder import T5Encoder
from training.loop import LoopSettings
from training.stages.initialize import initialize_encoder
from training.stages.text_encoder import AttributeReader, accuracy, pretrain
from training.stages.tokenizer import train_tokenizer
from training.world.fast.prompts import FastWording, describe
from training.world.fast.scenes import COLUMNS, draw_fast_scenes

WIDTH = 96
VOCABULARY_SIZE = 512


def fast_wordings(num_prompts: int, seed: int) -> list[FastWording]:
    """Random wordings of random scenes."""
    rng = random.Random(seed)
    return [describe(scene, rng) for scene in draw_fast_scenes(num_prompts, seed).words()]


def new_encoder(vocabulary_size: int) -> T5Encoder:
    config = T5Config(
        vocab_size=vocabulary_size,
        d_model=WIDTH,
        d_kv=32,
        d_ff=192,
        num_layers=3,
        num_heads=3,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    encoder = T5Encoder(config)
    initialize_encoder(encoder)
    return encoder


def run(out: Path, device: torch.device, steps: int, batch: int, num_measured: int = 2000) -> dict[str, float]:
    """Make the tokenizer, train the encoder, save `tokenizer/` and `text_encoder/` in `out`, and return accuracies."""
    torch.manual_seed(0)
    if not (out / "tokenizer" / "tokenizer.json").exists():
        corpus = (wording.text for wording in fast_wordings(20_000, seed=0))
        save_tokenizer(train_tokenizer(corpus, VOCABULARY_SIZE), out / "tokenizer")
    tokenizer = load_tokenizer(out / "tokenizer")
    reader = AttributeReader(new_encoder(len(tokenizer)), COLUMNS).to(device)
    settings = LoopSettings(out, steps, learning_rate=2e-3, save_every=250)
    pretrain(reader, tokenizer, settings, batch, fast_wordings)
    report = accuracy(reader, tokenizer, fast_wordings(num_measured, seed=11))
    save_encoder(reader.encoder, out / "text_encoder")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report
