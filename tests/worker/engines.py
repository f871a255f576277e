"""Tiny models of every kind, loaded as a worker has them, and requests for them."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch

from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.config import Conditioning, Fuse, Layout, Temporal, TransformerConfig
from models.generate import Generation, denoise
from models.sampling.schedule import NoiseSchedule
from models.vae import VideoDecoder
from tests.models.parts import make_vae
from tests.models.transformers import NUM_CLASSES, TEXT_WIDTH, make_config, make_transformer
from tests.tiny_checkpoint import tiny_card
from worker.engine import Denoised, Engine, Event
from worker.policy import Candidate
from worker.resident import ResidentModel, ResidentModels

DESIGNS: dict[str, dict[str, Any]] = {
    "local": {"temporal": Temporal.LOCAL, "matrix": None, "fuse": None},
    "matrix": {"temporal": Temporal.MATRIX, "fuse": None},
    "hybrid": {"fuse": Fuse.CONTENT_GATED},
    "joint": {"layout": Layout.JOINT, "temporal": Temporal.LOCAL, "matrix": None, "fuse": None},
}


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@cache
def make_models(design: str, device: str = "cpu") -> ResidentModels:
    """A model of the design for each kind of condition: `class`, `text` and `none`."""
    models = {kind.value: make_model(make_config(kind, depth=2, **DESIGNS[design]), device) for kind in Conditioning}
    return ResidentModels({name: model.card for name, model in models.items()}, models.__getitem__)


def make_model(config: TransformerConfig, device: str = "cpu") -> ResidentModel:
    settings = CheckpointConfig(
        config, NoiseSchedule(), scaling_factor=1.0, max_tokens=8 if config.conditioning is Conditioning.TEXT else None
    )
    transformer = make_transformer(config).eval().requires_grad_(False).to(device)
    vae = VideoDecoder(make_vae(levels=2, latent_channels=config.latent_channels).to(device), 1.0)
    return ResidentModel(tiny_card(config.conditioning.value), Checkpoint(settings, transformer, vae, None))


def make_generation(model: str = "class", **changes: Any) -> Generation:
    """A guided request for one of `make_models`; `condition` and `negative` are numbers that stand for any of them."""
    values: dict[str, Any] = {
        "seed": 1,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "sampler": "ddpm_spaced",
        "num_frames": 3,
        "condition": 0,
        "negative": 3,
    }
    values |= changes
    values["condition"] = make_condition(model, values["condition"])
    values["negative"] = make_condition(model, values["negative"]) if values["guidance_scale"] != 1 else None
    return Generation(**values)


def make_condition(model: str, number: int) -> Condition:
    """Of a text model: a prompt of 1 to 5 tokens."""
    if model == "class":
        return Condition(labels=torch.tensor([number % (NUM_CLASSES + 1)]))
    if model == "text":
        generator = torch.Generator().manual_seed(number)
        return Condition(text=torch.randn((1, 1 + number % 5, TEXT_WIDTH), generator=generator))
    return Condition()


def alone(model: ResidentModel, generation: Generation) -> torch.Tensor:
    """The latents that the plain loop makes of it."""
    return denoise(model.checkpoint.transformer, model.checkpoint.schedule, generation)


class RandomPolicy:
    """Any requests of any group, in any order and number, so long as somebody goes."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)

    def choose(self, candidates: list[Candidate[Any]], **_: Callable[..., Any]) -> list[str]:
        if not candidates:
            return []
        group = self.random.choice(candidates).group
        ids = [candidate.request_id for candidate in candidates if candidate.group == group]
        return self.random.sample(ids, self.random.randint(1, len(ids)))


class Everybody:
    """A policy that wants everybody of the first one's group to go."""

    def choose(self, candidates: list[Candidate[Any]], **_: Callable[..., Any]) -> list[str]:
        return [candidate.request_id for candidate in candidates if candidate.group == candidates[0].group]


def run_out(engine: Engine) -> list[Event]:
    """Everything that comes until nobody is there any more."""
    events: list[Event] = []
    while news := engine.step():
        events += news
    return events


def latents_of(events: list[Event]) -> dict[str, torch.Tensor]:
    return {event.request_id: event.latents for event in events if isinstance(event, Denoised)}
