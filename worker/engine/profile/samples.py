"""Requests and conditions of full size for measurements, when no real ones are there yet."""

import torch

from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.config import Conditioning
from models.generate import Generation
from worker.engine.active_request import ActiveRequest

_STEPS = 1000  # more than any measurement takes


def sample_requests(checkpoint: Checkpoint, rows: int) -> list[ActiveRequest]:
    """Requests with `rows` rows in all, of full length: guided ones, and one without guidance for an odd row."""
    guided = [2.0] * (rows // 2) + [1.0] * (rows % 2)
    return [_sample_request(checkpoint, number, scale) for number, scale in enumerate(guided)]


def _sample_request(checkpoint: Checkpoint, number: int, guidance_scale: float) -> ActiveRequest:
    condition = longest_condition(checkpoint, rows=1)
    generation = Generation(
        seed=number,
        num_inference_steps=_STEPS,
        guidance_scale=guidance_scale,
        sampler="ddim",
        num_frames=checkpoint.config.num_frames,
        condition=condition,
        negative=condition,
    )
    return ActiveRequest.create(f"sample {number}", "sample", checkpoint, generation, None, now=0.0)


def longest_condition(checkpoint: Checkpoint, rows: int) -> Condition:
    """The first class, or text of random numbers and of the most tokens."""
    config = checkpoint.config
    if config.conditioning is Conditioning.CLASS:
        return Condition(labels=torch.zeros(rows, dtype=torch.long))
    if config.conditioning is Conditioning.TEXT:
        tokens = checkpoint.settings.max_tokens or 1
        text = torch.randn(1, tokens, config.text_width or 1, generator=torch.Generator().manual_seed(0))
        return Condition(text=text.expand(rows, -1, -1), text_mask=torch.ones(rows, tokens, dtype=torch.bool))
    return Condition()
