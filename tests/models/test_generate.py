from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.conditioning import Condition
from models.config import Conditioning, TransformerConfig
from models.generate import Generation, Source, denoise, join, run_sampler, start_noise
from models.sampling.guidance import guide
from models.sampling.known_frames import KnownFrames
from models.sampling.noise import NoiseStream
from models.sampling.samplers import SAMPLERS, build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.table import LATENT
from models.sampling.update import gather, start_state, update
from models.sampling.windows import Windows
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


def test_progress_is_reported_after_each_step() -> None:
    reported: list[tuple[int, int]] = []
    denoise(make_transformer(CLASS), SCHEDULE, make_generation(), lambda step, total: reported.append((step, total)))
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


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
    assert torch.equal(start_noise(TEXT, 2, 9), NoiseStream(TEXT, Windows.of(2, 4), 9).start())


def test_a_mixed_batch_equals_separate_requests() -> None:
    """Three requests advance in one model call and one update per step, as a batching engine would have them."""
    transformer = make_transformer(CLASS)
    generations = [
        make_generation(),
        make_generation(sampler="unipc", seed=6, guidance_scale=1.0, negative=None),
        make_generation(sampler="euler", seed=7, guidance_scale=5.0, condition=Condition(labels=torch.tensor([0]))),
    ]
    tables = [build_table(g.sampler, g.num_inference_steps, SCHEDULE) for g in generations]
    streams = [NoiseStream(CLASS, g.windows(CLASS), g.seed) for g in generations]
    condition = Condition.concat([g.model_condition() for g in generations])
    rows, conditional, unconditional = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 2, 3]), torch.tensor([1, 2, 4])
    scales = torch.tensor([g.guidance_scale for g in generations])
    state = torch.cat([start_state(t, s.start()) for t, s in zip(tables, streams, strict=True)])
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


def make_clean(num_frames: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((1, num_frames, 4, 4, 4), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_frames_end_as_they_were_given(sampler: str) -> None:
    clean, is_known = make_clean(3), torch.tensor([True, False, True])
    transformer = make_transformer(CLASS)
    generation = make_generation(sampler=sampler, num_inference_steps=6)
    held = denoise(transformer, SCHEDULE, replace(generation, known=KnownFrames(clean, is_known[None])))
    # `deis` stops at the noise level of timestep 0, a hundredth of the noise.
    tolerance = 0.1 if sampler == "deis" else 1e-3
    torch.testing.assert_close(held[:, is_known], clean[:, is_known], rtol=tolerance, atol=tolerance)
    free = denoise(transformer, SCHEDULE, generation)
    assert not torch.allclose(held[:, 1], free[:, 1], rtol=1e-2), "the other frames do not see the known ones"


@pytest.mark.parametrize("is_clean", [False, True])
def test_known_frames_are_shown_as_the_model_was_trained_to_see_them(is_clean: bool) -> None:
    transformer = make_transformer(replace(CLASS, clean_known_frames=is_clean))
    seen: list[torch.Tensor] = []
    transformer.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    clean, is_known = make_clean(3), torch.tensor([True, False, True])
    held = denoise(transformer, SCHEDULE, make_generation(known=KnownFrames(clean, is_known[None])))
    rows = torch.cat(seen)  # of 4 guided steps
    assert (rows[:, is_known] == clean[:, is_known]).flatten(1).all(dim=1).tolist() == [is_clean] * 8
    assert not (rows[:, 1] == clean[:, 1]).any()
    torch.testing.assert_close(held[:, is_known], clean[:, is_known], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_strength_decides_how_many_steps_are_done(sampler: str) -> None:
    steps: list[int] = []
    generation = make_generation(sampler=sampler, num_inference_steps=8, source=Source(make_clean(3), 0.3))
    latents = denoise(make_transformer(CLASS), SCHEDULE, generation, lambda step, _total: steps.append(step))
    assert latents.isfinite().all()
    assert steps == [1, 2, 3]  # of 8, the last 3: the first one is int(0.7 * 8) = 5


def test_a_source_that_the_model_would_predict_is_left_as_it_is() -> None:
    """With the true noise as its prediction, an exact solver comes back to the source from any level."""
    clean = make_clean(3)
    for sampler in ("ddim", "ddim_spaced", "euler", "dpmpp_2m", "unipc"):
        generation = make_generation(sampler=sampler, num_inference_steps=10, source=Source(clean, 0.5))
        table = generation.table(SCHEDULE)
        noise = make_clean(3, seed=2)
        state = generation.start_state(table, noise)
        for step in range(table.num_steps):
            state = update(state, noise, None, torch.zeros_like(noise), gather([table], [step]))
        torch.testing.assert_close(state[:, LATENT], clean, rtol=1e-3, atol=1e-3)


def test_a_video_within_the_trained_length_has_one_window() -> None:
    """The stride changes nothing then: the video is its own window."""
    transformer = make_transformer(CLASS)
    latents = denoise(transformer, SCHEDULE, make_generation(num_frames=4))
    assert torch.equal(denoise(transformer, SCHEDULE, make_generation(num_frames=4, window_stride=1)), latents)


def test_each_step_of_a_long_video_averages_its_windows() -> None:
    transformer, generation = make_transformer(CLASS), make_generation(num_frames=6, num_inference_steps=1)
    windows = generation.windows(CLASS)
    assert windows.starts == (0, 2)
    table = generation.table(SCHEDULE)
    start = NoiseStream(CLASS, windows, generation.seed).start()
    state = generation.start_state(table, start)
    coefficients = gather([table], [0])
    condition = Condition.concat([generation.condition, NULL])
    predictions = []
    for first in windows.starts:
        part = state[:, LATENT, first : first + 4]
        with torch.no_grad():
            outputs = transformer(part.expand(2, -1, -1, -1, -1), coefficients.timesteps.expand(2), condition)
        predictions.append(guide(outputs, torch.tensor([0]), torch.tensor([1]), torch.tensor([3.0]), 4)[0])
    mixed = torch.zeros_like(start)
    mixed[:, :2], mixed[:, 4:] = predictions[0][:, :2], predictions[1][:, 2:]
    mixed[:, 2] = (2 * predictions[0][:, 2] + 1 * predictions[1][:, 0]) / 3
    mixed[:, 3] = (1 * predictions[0][:, 3] + 2 * predictions[1][:, 1]) / 3
    expected = update(state, mixed, None, torch.zeros_like(mixed), coefficients)[:, LATENT]
    latents = denoise(transformer, SCHEDULE, generation)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


def test_a_model_of_clean_known_frames_makes_the_windows_in_turn() -> None:
    """Each turn is a video of its own. It knows half of the frames of the one before that it shares, and fades in."""
    config = replace(CLASS, clean_known_frames=True)
    transformer, generation = make_transformer(config), make_generation(num_frames=7)
    assert generation.turns(config) == (0, 2, 3)
    table, noise = generation.table(SCHEDULE), NoiseStream(config, Windows.of(4, 4), generation.seed)

    def run(known_frames: torch.Tensor | None = None) -> torch.Tensor:
        known = None
        if known_frames is not None:
            count = known_frames.shape[1]
            latents = torch.cat([known_frames, torch.zeros(1, 4 - count, 4, 4, 4)], dim=1)
            known = KnownFrames(latents, torch.arange(4)[None] < count)
        turn = replace(generation, num_frames=4, known=known)
        return run_sampler(transformer, table, turn, noise.start(), noise.draw)

    first = run()
    second = run(first[:, 2:3])  # shares frames 2 and 3
    half = (first[:, 3:] + second[:, 1:2]) / 2
    made = torch.cat([first[:, :3], half, second[:, 2:]], dim=1)
    third = run(made[:, 3:5])  # shares frames 3 to 5
    half = (made[:, 5:] + third[:, 2:3]) / 2
    expected = torch.cat([made[:, :5], half, third[:, 3:]], dim=1)
    steps: list[tuple[int, int]] = []
    torch.testing.assert_close(denoise(transformer, SCHEDULE, generation, lambda *step: steps.append(step)), expected)
    assert steps == [(step, 12) for step in range(1, 13)]


def test_the_frames_of_two_turns_fade_from_one_to_the_other() -> None:
    made, latents = torch.zeros(1, 8, 1, 1, 1), torch.ones(1, 8, 1, 1, 1)
    joined = join(made, latents, start=2)
    assert joined.flatten().tolist() == pytest.approx([0] * 5 + [0.25, 0.5, 0.75] + [1] * 2)
    assert join(made, latents, start=8).flatten().tolist() == [0.0] * 8 + [1.0] * 8


def test_turns_have_the_frames_that_the_request_knows_and_its_source() -> None:
    config = replace(CLASS, clean_known_frames=True)
    transformer = make_transformer(config)
    known = KnownFrames(make_clean(7), torch.isin(torch.arange(7), torch.tensor([0, 6]))[None])
    latents = denoise(transformer, SCHEDULE, make_generation(num_frames=7, known=known, sampler="ddim"))
    torch.testing.assert_close(latents[:, [0, 6]], known.latents[:, [0, 6]], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(latents[:, 1:6], known.latents[:, 1:6], rtol=1e-2, atol=1e-2)
    edit = make_generation(num_frames=7, sampler="ddim", source=Source(make_clean(7), 0.3))
    last = edit.turn(config, 2, make_clean(6))
    assert last.source is not None
    assert torch.equal(last.source.latents, make_clean(7)[:, 3:])
    assert denoise(transformer, SCHEDULE, edit).shape == (1, 7, 4, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 0}, "0 frames: a video has at least 1"),
        ({"num_frames": 9, "window_stride": 5}, "window stride of 5: allowed are 1 to 4"),
        ({"known": KnownFrames(torch.zeros(1, 2, 4, 4, 4), torch.ones(1, 2).bool())}, "known frames of shape"),
        ({"known": KnownFrames(torch.zeros(1, 3, 4, 4, 4), torch.ones(1, 3).bool())}, "3 known frames of 3"),
        ({"source": Source(torch.zeros(1, 3, 4, 4, 4), 0.0)}, "the strength 0.0: allowed is above 0"),
        ({"source": Source(torch.zeros(1, 2, 4, 4, 4), 0.5)}, "source latents of shape"),
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
def test_unsupported_requests_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(make_transformer(CLASS), SCHEDULE, make_generation(**changes))
