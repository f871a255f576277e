"""Tiny models of every kind in a model cache, requests for them, and schedulers for tests."""

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import torch

from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.config import Conditioning, Fuse, Layout, Temporal, TransformerConfig
from models.generate import Generation, Source, denoise
from models.sampling.known_frames import KnownFrames
from models.sampling.schedule import NoiseSchedule
from models.vae import VideoDecoder
from tests.models.parts import make_vae
from tests.models.transformers import NUM_CLASSES, TEXT_WIDTH, make_config, make_transformer
from tests.tiny_checkpoint import tiny_card
from worker.engine.engine import Denoised, Engine, Event
from worker.engine.scheduler import Candidate
from worker.loading.model_cache import LoadedModel, ModelCache

DESIGNS: dict[str, dict[str, Any]] = {
    "local": {"temporal": Temporal.LOCAL, "matrix": None, "fuse": None},
    "matrix": {"temporal": Temporal.MATRIX, "fuse": None},
    "hybrid": {"fuse": Fuse.CONTENT_GATED, "clean_known_frames": True},
    "joint": {"layout": Layout.JOINT, "temporal": Temporal.LOCAL, "matrix": None, "fuse": None},
}


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def make_models(design: str, device: str = "cpu") -> ModelCache:
    """A model of `design` for each kind of conditioning, in memory: `class`, `text` and `none`."""
    loaded = _make_loaded(design, device)
    models = ModelCache({name: model.card for name, model in loaded.items()}, loaded.__getitem__)
    for name in loaded:
        models.load(name)
    return models


@cache
def _make_loaded(design: str, device: str) -> dict[str, LoadedModel]:
    return {kind.value: make_model(make_config(kind, depth=2, **DESIGNS[design]), device) for kind in Conditioning}


def make_model(config: TransformerConfig, device: str = "cpu") -> LoadedModel:
    settings = CheckpointConfig(
        config, NoiseSchedule(), scaling_factor=1.0, max_tokens=8 if config.conditioning is Conditioning.TEXT else None
    )
    transformer = make_transformer(config).eval().requires_grad_(False).to(device)
    vae = VideoDecoder(make_vae(levels=2, latent_channels=config.latent_channels).to(device), 1.0)
    return LoadedModel(tiny_card(config.conditioning.value), Checkpoint(settings, transformer, vae, None))


def make_generation(model: str = "class", **changes: Any) -> Generation:
    """A guided request for one of `make_models`. `condition` and `negative` are numbers for `make_condition`.

    `known` is a list of indices of frames, and `strength` that of an edit; their latents are random.
    """
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
    known, strength = values.pop("known", []), values.pop("strength", None)
    if known:
        is_known = torch.tensor([[frame in known for frame in range(values["num_frames"])]])
        values["known"] = KnownFrames(make_latents(values["num_frames"], seed=7), is_known)
    if strength is not None:
        values["source"] = Source(make_latents(values["num_frames"], seed=8), strength)
    values["condition"] = make_condition(model, values["condition"])
    values["negative"] = make_condition(model, values["negative"]) if values["guidance_scale"] != 1 else None
    return Generation(**values)


def make_latents(num_frames: int, seed: int) -> torch.Tensor:
    """Random clean latents for a video of `make_models`."""
    config = make_config()
    shape = (1, num_frames, config.latent_channels, config.latent_size, config.latent_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_condition(model: str, number: int) -> Condition:
    """The condition with a number: a class label, or a prompt of 1 to 5 tokens."""
    if model == "class":
        return Condition(labels=torch.tensor([number % (NUM_CLASSES + 1)]))
    if model == "text":
        generator = torch.Generator().manual_seed(number)
        return Condition(text=torch.randn((1, 1 + number % 5, TEXT_WIDTH), generator=generator))
    return Condition()


def denoise_alone(model: LoadedModel, generation: Generation) -> torch.Tensor:
    """The latents from `denoise`, without the engine."""
    return denoise(model.checkpoint.transformer, model.checkpoint.schedule, generation)


class RandomScheduler:
    """Chooses at least one request of a random group, in random order."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)

    def choose(self, candidates: list[Candidate[Any]], **_: Callable[..., Any]) -> list[str]:
        if not candidates:
            return []
        group = self.random.choice(candidates).group
        ids = [candidate.request_id for candidate in candidates if candidate.group == group]
        return self.random.sample(ids, self.random.randint(1, len(ids)))


class FullBatchScheduler:
    """Chooses all requests of the first request's group."""

    def choose(self, candidates: list[Candidate[Any]], **_: Callable[..., Any]) -> list[str]:
        return [candidate.request_id for candidate in candidates if candidate.group == candidates[0].group]


def run_until_done(engine: Engine) -> list[Event]:
    """Step until no request is active, and return all events."""
    events: list[Event] = []
    while new := engine.step():
        events += new
    return events


def latents_of(events: list[Event]) -> dict[str, torch.Tensor]:
    return {event.request_id: event.latents for event in events if isinstance(event, Denoised)}
