"""The text encoder: a small T5 encoder that learns to read each attribute of the scene from any wording of a prompt.

One attention-pooled head per attribute reads the tokens as a video model's cross attention will. The heads are thrown
away; the encoder is then used frozen. Shape legend: B prompts, L tokens, D width, A attributes.
"""

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from models.checkpoint.text_encoder import save_encoder
from models.checkpoint.tokenizer import load_tokenizer, save_tokenizer
from models.t5.config import T5Config
from models.t5.encoder import T5Encoder
from models.t5.tokenizer import TextTokenizer
from training.loop import LoopSettings, autocast, pick_device, train
from training.stages.initialize import initialize_encoder
from training.stages.tokenizer import MAX_TOKENS, make_tokenizer
from training.world import prompts
from training.world.prompts import Wording
from training.world.scenes import VOCABULARY, Split, draw_scenes

WIDTH = 128


class TargetedText(Protocol):
    """A text, and what the heads are to read in it: a class index for each attribute."""

    @property
    def text(self) -> str: ...

    def targets(self) -> list[int]: ...


class AttributeReader(nn.Module):
    """The encoder and its heads: token ids (B, L) and mask (B, L) -> logits (B, classes), one tensor per attribute.

    `vocabulary` holds the words of each attribute.
    """

    def __init__(self, encoder: T5Encoder, vocabulary: Mapping[str, Sequence[str]] = VOCABULARY) -> None:
        super().__init__()
        self.encoder = encoder
        self.attributes = tuple(vocabulary)
        width = encoder.config.d_model
        self.queries = nn.Parameter(torch.randn(len(vocabulary), width) * width**-0.5)
        self.heads = nn.ModuleList(nn.Linear(width, len(words) + 1) for words in vocabulary.values())

    def forward(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        states = self.encoder(tokens, mask).float()
        scores = torch.einsum("ad,bld->bal", self.queries, states).masked_fill(~mask[:, None], -torch.inf)
        pooled = scores.softmax(dim=-1) @ states
        return [head(pooled[:, index]) for index, head in enumerate(self.heads)]


def new_encoder(vocabulary_size: int) -> T5Encoder:
    config = T5Config(
        vocab_size=vocabulary_size,
        d_model=WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=3,
        num_heads=4,
        dropout_rate=0.05,
        feed_forward_proj="gated-gelu",
    )
    encoder = T5Encoder(config)
    initialize_encoder(encoder)
    return encoder


def tokenize(tokenizer: TextTokenizer, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both (B, L), L the longest text but at most MAX_TOKENS."""
    tokens, mask = tokenizer.encode(texts, MAX_TOKENS)
    return tokens.to(device), mask.to(device)


def wordings_of(num_prompts: int, seed: int, disturbed: bool = False, held_out: bool = False) -> list[Wording]:
    """Random wordings of random scenes; words hold nothing back, so all combinations may be read."""
    rng = random.Random(seed)
    scenes = draw_scenes(num_prompts, seed, Split.ALL).words()
    made = (prompts.describe(scene, rng, held_out) for scene in scenes)
    return [prompts.disturb(wording, rng) if disturbed else wording for wording in made]


def disturbed_wordings(num_prompts: int, seed: int) -> list[Wording]:
    """The training data of the encoder."""
    return wordings_of(num_prompts, seed, disturbed=True)


def pretrain(
    reader: AttributeReader,
    tokenizer: TextTokenizer,
    settings: LoopSettings,
    batch: int,
    make_wordings: Callable[[int, int], Sequence[TargetedText]] = disturbed_wordings,
) -> None:
    """Train on `make_wordings(number, seed)`."""
    device = reader.queries.device

    def loss_of_step(step: int) -> dict[str, Tensor]:
        made = make_wordings(batch, 1_000_000 + step)
        tokens, mask = tokenize(tokenizer, [wording.text for wording in made], device)
        targets = torch.tensor([wording.targets() for wording in made], device=device)
        with autocast(device):
            logits = reader(tokens, mask)
        losses = torch.stack([F.cross_entropy(each.float(), targets[:, i]) for i, each in enumerate(logits)])
        return {"loss": losses.mean(), **dict(zip(reader.attributes, losses, strict=True))}

    reader.train()
    train(settings, reader, loss_of_step)
    reader.eval()


@torch.no_grad()
def read(reader: AttributeReader, tokenizer: TextTokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The attributes that the heads read in each text: class indices in the order of ATTRIBUTES."""
    tokens, mask = tokenize(tokenizer, texts, reader.queries.device)
    return torch.stack([logits.argmax(dim=-1) for logits in reader(tokens, mask)], dim=1).tolist()


def accuracy(reader: AttributeReader, tokenizer: TextTokenizer, made: Sequence[TargetedText]) -> dict[str, float]:
    """The share of wordings read rightly, by attribute and (`all`) in every attribute at once."""
    right = []
    for start in tqdm(range(0, len(made), 256), desc="reading", leave=False):
        chunk = made[start : start + 256]
        readings = read(reader, tokenizer, [wording.text for wording in chunk])
        right.append(torch.tensor(readings) == torch.tensor([wording.targets() for wording in chunk]))
    table = torch.cat(right).float()
    return dict(
        zip((*reader.attributes, "all"), [*table.mean(dim=0).tolist(), table.prod(dim=1).mean().item()], strict=True)
    )


def run(
    out: Path, device: torch.device, steps: int = 2400, batch: int = 128, num_measured: int = 4000
) -> dict[str, dict[str, float]]:
    """Make the tokenizer, train the encoder, save `tokenizer/` and `text_encoder/` in `out`, and return accuracies."""
    torch.manual_seed(0)
    if not (out / "tokenizer" / "tokenizer.json").exists():
        save_tokenizer(make_tokenizer(), out / "tokenizer")
    tokenizer = load_tokenizer(out / "tokenizer")
    reader = AttributeReader(new_encoder(len(tokenizer))).to(device)
    pretrain(reader, tokenizer, LoopSettings(out, steps, learning_rate=2e-3, save_every=250), batch)
    report = {
        "training wordings": accuracy(reader, tokenizer, wordings_of(num_measured, seed=11)),
        "held-out wordings": accuracy(reader, tokenizer, wordings_of(num_measured, seed=12, held_out=True)),
    }
    save_encoder(reader.encoder, out / "text_encoder")
    torch.save({"queries": reader.queries.detach().cpu(), "heads": reader.heads.state_dict()}, out / "heads.pt")
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/training/text"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args(arguments)
    print(json.dumps(run(options.out, pick_device(options.device), options.steps, options.batch), indent=2))


if __name__ == "__main__":
    main()
