import re
from dataclasses import replace

import pytest
import torch

from models.generate import denoise
from models.sampling.samplers import SAMPLERS, build_table
from models.sampling.schedule import NoiseSchedule
from models.sampling.speed_plan import check_plan, with_plan
from models.sampling.table import LATENT, MODEL_OUTPUT, PREDICTION
from models.sampling.update import gather, start_state, update
from tests.worker.engines import make_generation, make_models

SCHEDULE = NoiseSchedule()
WITHOUT_NOISE = ["ddim_spaced", "ddim", "euler", "dpmpp_2m", "deis"]
START = torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))


def run(sampler: str, plan: str, predict: "Predict") -> torch.Tensor:
    """The latents before each step, for a transformer whose clean prediction is `predict(timestep)`."""
    exact = build_table(sampler, len(plan), SCHEDULE)
    table = with_plan(exact, plan)
    state = start_state(table, START)
    latents = []
    for step, rows in enumerate(plan):
        coefficients = gather([table], [step])
        from_latent, from_output = exact.weights[step, PREDICTION, [LATENT, MODEL_OUTPUT]].double()
        latents.append(state[:, LATENT])
        clean = predict(float(table.timesteps[step]))
        output = ((clean - from_latent * state[:, LATENT]) / from_output).float()
        unread = torch.full_like(output, 1e6)
        state = update(state, output if rows != "0" else unread, None, torch.zeros_like(output), coefficients)
    return torch.cat(latents)


class Predict:
    def __init__(self, degree: int) -> None:
        self.parts = torch.randn(degree + 1, *START.shape, generator=torch.Generator().manual_seed(1)).double()

    def __call__(self, timestep: float) -> torch.Tensor:
        return sum((part * (timestep / 1000) ** power for power, part in enumerate(self.parts)), torch.zeros(()))


@pytest.mark.parametrize(
    ("sampler", "degree"), [("ddim", 2), ("ddim_spaced", 2), ("euler", 2), ("dpmpp_2m", 2), ("deis", 1)]
)
def test_steps_without_rows_follow_a_polynomial_exactly(sampler: str, degree: int) -> None:
    plan = "2222010020102"
    exact = run(sampler, "2" * len(plan), Predict(degree))
    torch.testing.assert_close(run(sampler, plan, Predict(degree)), exact, rtol=1e-3, atol=1e-3)


def test_a_step_after_a_single_prediction_uses_it_again() -> None:
    exact = run("ddim", "2222", Predict(0))
    torch.testing.assert_close(run("ddim", "2001", Predict(0)), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", WITHOUT_NOISE)
def test_a_plan_without_skipped_steps_leaves_the_table_as_it_is(sampler: str) -> None:
    table = build_table(sampler, 4, SCHEDULE)
    assert with_plan(table, "2121") is table


@pytest.mark.parametrize(
    ("sampler", "plan", "guided", "message"),
    [
        ("ddim", "22", True, "4 steps with guidance need as many digits of 012"),
        ("ddim", "2232", True, "4 steps with guidance need as many digits of 012"),
        ("ddim", "1211", False, "4 steps without guidance need as many digits of 01"),
        ("ddim", "1222", True, "the first digit must be 2"),
        ("ddim", "2220", True, "and the last not 0"),
        ("ddpm", "2202", True, "ddpm, which adds noise"),
        ("unipc", "2202", True, "unipc, which remembers too much"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(sampler: str, plan: str, guided: bool, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_plan(plan, build_table(sampler, 4, SCHEDULE), guided=guided)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_can_be_used_again_with_every_sampler(sampler: str) -> None:
    check_plan("2111", build_table(sampler, 4, SCHEDULE), guided=True)


def test_the_difference_is_used_again_until_the_next_step_with_both_rows() -> None:
    model = make_models("local")["class"].checkpoint
    generation = make_generation("class", sampler="ddim", num_inference_steps=3)
    again = denoise(model.transformer, SCHEDULE, replace(generation, plan="212"))
    exact = denoise(model.transformer, SCHEDULE, generation)
    fresh = denoise(model.transformer, SCHEDULE, replace(generation, plan="222"))
    assert torch.equal(fresh, exact)
    assert 0 < (again - exact).norm() < exact.norm()


def test_known_frames_end_as_given_with_skipped_steps() -> None:
    model = make_models("local")["class"].checkpoint
    generation = make_generation("class", sampler="ddim", num_inference_steps=8, known=[0], plan="22202012")
    latents = denoise(model.transformer, SCHEDULE, generation)
    assert generation.known is not None
    torch.testing.assert_close(latents[0, 0], generation.known.latents[0, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("plan", "strength", "steps"), [("22012", 0.5, 10), ("2012", 0.4, 10)])
def test_a_plan_counts_the_steps_that_an_edit_does(plan: str, strength: float, steps: int) -> None:
    model = make_models("local")["class"].checkpoint
    generation = make_generation("class", sampler="ddim", num_inference_steps=steps, strength=strength, plan=plan)
    assert denoise(model.transformer, SCHEDULE, generation).isfinite().all()
