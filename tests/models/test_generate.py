from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.conditioning import Condition
from models.config import Conditioning, TransformerConfig
from models.generate import Generation, denoise, start_noise
from models.sampling.guidance import guide
from models.sampling.noise import NoiseStream
from models.sampling.samplers import SAMPLERS, build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.table import LATENT
from models.sampling.update import gather, start_state, update
from models.transformer import Transformer
from tests.models.transformers import TEXT_WIDTH, make_local_config

SCHEDULE = NoiseSchedule()
CLASS = make_local_config()
TEXT = make_local_config(Conditioning.TEXT)
NONE = make_local_config(Conditioning.NONE)
NULL = Condition(labels=torch.tensor([3]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are so small that handing work to other threads takes longer than doing it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_transformer(config: TransformerConfig) -> Transformer:
    """Random weights everywhere: as initialized for training, a model's output would not depend on its input."""
    transformer = Transformer(config).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return transformer


def make_generation(**changes: Any) -> Generation:
    settings: dict[str, Any] = {
        "seed": 5,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "sampler": "ddpm_spaced",
        "num_frames": 3,
        "condition": Condition(labels=torch.tensor([1])),
        "negative": NULL,
    }
    return Generation(**(settings | changes))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_decides_the_latents(sampler: str) -> None:
    transformer = make_transformer(CLASS)
    latents = denoise(transformer, SCHEDULE, make_generation(sampler=sampler))
    assert (latents.shape, latents.dtype) == ((1, 3, 4, 4, 4), torch.float32)
    assert latents.isfinite().all()
    assert torch.equal(denoise(transformer, SCHEDULE, make_generation(sampler=sampler)), latents)
    assert not torch.equal(denoise(transformer, SCHEDULE, make_generation(sampler=sampler, seed=6)), latents)


def test_progress_is_told_after_each_step() -> None:
    told: list[tuple[int, int]] = []
    denoise(make_transformer(CLASS), SCHEDULE, make_generation(), lambda step, total: told.append((step, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_guidance_scale_1_is_the_condition_alone() -> None:
    transformer = make_transformer(CLASS)
    alone = denoise(transformer, SCHEDULE, make_generation(guidance_scale=1.0, negative=None))
    pushed_nowhere = denoise(transformer, SCHEDULE, make_generation(negative=Condition(labels=torch.tensor([1]))))
    torch.testing.assert_close(alone, pushed_nowhere, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone, denoise(transformer, SCHEDULE, make_generation()), rtol=1e-2)


def test_prompts_of_different_lengths_guide_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    prompt = Condition(text=torch.randn((1, 5, TEXT_WIDTH), generator=generator))
    negative = Condition(text=torch.randn((1, 2, TEXT_WIDTH), generator=generator))
    transformer = make_transformer(TEXT)
    generation = make_generation(sampler="ddim", condition=prompt, negative=negative)
    latents = denoise(transformer, SCHEDULE, generation)
    assert latents.isfinite().all()
    assert not torch.equal(latents, denoise(transformer, SCHEDULE, replace(generation, negative=prompt)))


def test_an_unconditional_model_needs_no_condition() -> None:
    generation = make_generation(condition=Condition(), negative=None, guidance_scale=1.0)
    assert denoise(make_transformer(NONE), SCHEDULE, generation).isfinite().all()


def test_a_half_precision_model_is_sampled_in_float32() -> None:
    generation = make_generation(sampler="dpmpp_2m")
    exact = denoise(make_transformer(CLASS), SCHEDULE, generation)
    rounded = denoise(make_transformer(CLASS).bfloat16(), SCHEDULE, generation)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, rounded.bfloat16().float())
    assert (rounded - exact).norm() < 0.1 * exact.norm()


def test_start_noise_is_the_first_of_the_stream() -> None:
    assert torch.equal(start_noise(TEXT, 2, 9), NoiseStream(TEXT, 2, 9).draw())


def test_a_mixed_batch_makes_what_each_request_makes_alone() -> None:
    """Three requests advance in one model call and one update per step, as a batching engine would have them."""
    transformer = make_transformer(CLASS)
    generations = [
        make_generation(),
        make_generation(sampler="unipc", seed=6, guidance_scale=1.0, negative=None),
        make_generation(sampler="euler", seed=7, guidance_scale=5.0, condition=Condition(labels=torch.tensor([0]))),
    ]
    tables = [build_table(g.sampler, g.num_inference_steps, SCHEDULE) for g in generations]
    streams = [NoiseStream(CLASS, g.num_frames, g.seed) for g in generations]
    condition = Condition.concat([g.model_condition() for g in generations])
    rows, conditional, unconditional = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 2, 3]), torch.tensor([1, 2, 4])
    scales = torch.tensor([g.guidance_scale for g in generations])
    state = torch.cat([start_state(t, s.draw()) for t, s in zip(tables, streams, strict=True)])
    for step in range(4):
        coefficients = gather(tables, [step] * 3)
        with torch.no_grad():
            outputs = transformer(state[rows, LATENT], coefficients.timesteps[rows], condition)
        noise, variance = guide(outputs, conditional, unconditional, scales, 4)
        fresh = [
            s.draw() if t.draws_noise[step] else torch.zeros(1, 3, 4, 4, 4)
            for t, s in zip(tables, streams, strict=True)
        ]
        state = update(state, noise, variance, torch.cat(fresh), coefficients)
    for row, generation in enumerate(generations):
        alone = denoise(transformer, SCHEDULE, generation)
        assert (state[row, LATENT] - alone[0]).norm() < 1e-4 * alone.norm(), generation.sampler


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 5}, "5 frames: this checkpoint makes 1 to 4"),
        ({"num_inference_steps": 0}, "0 inference steps"),
        ({"sampler": "heun"}, "known are ddim_spaced"),
        ({"negative": None}, "without a negative condition"),
        ({"guidance_scale": float("nan")}, "must be a finite number"),
        ({"seed": -1}, "the seed -1"),
        ({"condition": Condition(labels=torch.tensor([4]))}, "classes 0..2"),
        ({"condition": Condition()}, "got no labels"),
        ({"condition": Condition(labels=torch.tensor([0, 1]))}, "one class label per sample"),
        ({"negative": Condition(text=torch.zeros(1, 2, TEXT_WIDTH))}, "got no labels"),
    ],
)
def test_what_a_checkpoint_cannot_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(make_transformer(CLASS), SCHEDULE, make_generation(**changes))
