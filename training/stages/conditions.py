"""The condition of each training video: its class, or one of several wordings of its scene.

Shapes: B batch, N videos, L text tokens, E width of the text encoder.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from models.conditioning import Condition
from models.t5.encoder import T5Encoder
from models.t5.tokenizer import TextTokenizer
from training.stages.latents import LatentDataset
from training.stages.tokenizer import MAX_TOKENS
from training.world import prompts
from training.world.scenes import CLASS_NAMES, Scene

DROPOUT = 0.1  # of labels and prompts, so that guidance has something to push away from

ConditionOf = Callable[[Tensor, Tensor], Condition]  # (video indices (B,), dropped (B,) bool) -> B rows


def class_conditions(dataset: LatentDataset) -> ConditionOf:
    """Each video's class; dropped ones have the null class."""
    labels = torch.tensor([dataset.scene(i).class_label for i in range(len(dataset))], device=dataset.latents.device)

    def condition_of(indices: Tensor, dropped: Tensor) -> Condition:
        return Condition(labels=torch.where(dropped, len(CLASS_NAMES), labels[indices]))

    return condition_of


@dataclass(frozen=True)
class PromptPool:
    """`wordings` token rows for each of N videos: `tokens` (N, wordings, L) padded, `lengths` (N, wordings)."""

    tokens: Tensor
    lengths: Tensor
    empty: Tensor  # (L,), the empty prompt

    def to(self, device: torch.device) -> "PromptPool":
        return PromptPool(self.tokens.to(device), self.lengths.to(device), self.empty.to(device))


def make_prompt_pool(dataset: LatentDataset, tokenizer: TextTokenizer, wordings: int, seed: int) -> PromptPool:
    """Word every scene `wordings` times."""
    rng = random.Random(seed)
    tokens = torch.zeros(len(dataset), wordings, MAX_TOKENS, dtype=torch.int16)
    lengths = torch.zeros(len(dataset), wordings, dtype=torch.int16)
    rows = dataset.scenes.tolist()
    chunk = 4096
    for start in tqdm(range(0, len(rows), chunk), desc="wording", unit="batch"):
        texts = [
            prompts.sample(Scene.from_row(row), rng) for row in rows[start : start + chunk] for _ in range(wordings)
        ]
        encoded, mask = _tokenize(tokenizer, texts)
        stop = start + len(texts) // wordings
        tokens[start:stop] = encoded.to(torch.int16).view(-1, wordings, MAX_TOKENS)
        lengths[start:stop] = mask.sum(dim=1).to(torch.int16).view(-1, wordings)
    longest = int(lengths.max())
    empty = _tokenize(tokenizer, [""])[0][0, :longest].to(torch.int16)
    return PromptPool(tokens[:, :, :longest].contiguous(), lengths, empty)


def text_conditions(pool: PromptPool, encoder: T5Encoder) -> ConditionOf:
    """One wording of each video, encoded; a dropped one is the empty prompt, padded to the length of the wording.

    That is what guidance compares with at inference: the published pipeline cuts the encoded negative prompt to the
    token count of the prompt, padding included.
    """
    positions = torch.arange(pool.tokens.shape[-1], device=pool.tokens.device)

    @torch.no_grad()
    def condition_of(indices: Tensor, dropped: Tensor) -> Condition:
        which = torch.randint(pool.tokens.shape[1], indices.shape, device=indices.device)
        tokens = torch.where(dropped[:, None], pool.empty, pool.tokens[indices, which]).long()
        lengths = pool.lengths[indices, which]
        encoded_lengths = torch.where(dropped, int((pool.empty != 0).sum()), lengths)
        states = encoder(tokens, positions < encoded_lengths[:, None])
        return Condition(text=states, text_mask=positions < lengths[:, None])

    return condition_of


def _tokenize(tokenizer: TextTokenizer, texts: list[str]) -> tuple[Tensor, Tensor]:
    return tokenizer.encode([text.lower().strip() for text in texts], MAX_TOKENS, pad_to_max=True)
