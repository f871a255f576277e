"""Latents from the engine equal those of `denoise`, whatever else is active: random sequences of operations."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from models.generate import Generation
from models.sampling.samplers import SAMPLERS
from models.sampling.schedule import NoiseSchedule
from tests.models.adapters.adapter_folders import make_scaled
from tests.worker.engines import (
    DESIGNS,
    DEVICES,
    RandomScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_models,
    run_until_done,
)
from worker.engine.engine import Engine, EngineSettings, Event, Failed
from worker.engine.snapshot import Snapshot
from worker.errors import NotFiniteError

MAX_SLOTS = 8
# Of each request, the seeds and scales of its adapters: two requests can have the same ones.
ADAPTERS: list[list[tuple[int, float]]] = [[], [], [(0, 1.0)], [(1, -0.5)], [(0, 0.5), (1, 1.0), (2, 1.0)]]
DIVERGES = 3e38  # unless the negative condition equals the condition
EXAMPLES = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # failing sequences are short already, and shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def requests_of_any_kind(draw: st.DrawFn) -> tuple[str, Generation]:
    model = draw(st.sampled_from(["text", "text", "text", "class", "none"]))  # mostly requests that can share a pass
    generation = make_generation(
        model,
        seed=draw(st.integers(0, 3)),
        num_inference_steps=draw(st.integers(1, 6)),
        guidance_scale=draw(st.sampled_from([1.0, 0.0, 3.0, 7.5, DIVERGES])),
        sampler=draw(st.sampled_from(SAMPLERS)),
        num_frames=draw(st.sampled_from([4, 4, 4, 2, 7])),
        known=draw(st.sampled_from([[], [], [0], [1, 3]])),
        strength=draw(st.sampled_from([None, None, 0.7])),
        condition=draw(st.integers(0, 4)),
        negative=draw(st.integers(0, 4)),
    )
    return model, replace(generation, plan=draw(st.none() | speed_plans(generation)))


def speed_plans(generation: Generation) -> st.SearchStrategy[str]:
    """Any plan of the steps that `generation` does."""
    steps = generation.table(NoiseSchedule()).num_steps
    full = "2" if generation.guided else "1"
    fewer = "" if generation.sampler in ("ddpm_spaced", "ddpm", "euler_ancestral", "unipc") else "0"
    digits = st.sampled_from([*fewer, *dict.fromkeys(("1", full))])
    middle = st.text(digits, min_size=max(0, steps - 2), max_size=max(0, steps - 2))
    return middle.map(lambda rows: (full + rows + "1")[:steps])


class EngineMachine(RuleBasedStateMachine):
    """Requests are admitted, run in random batches, move to another engine by snapshot, are evicted, fail, and end."""

    design: str
    device: str
    deterministic: bool
    in_flight: int
    requests: Any = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.models = make_models(self.design, self.device)
        self.scheduler = RandomScheduler()
        self.engine = self.new_engine()
        self.generations: dict[str, tuple[str, Generation]] = {}

    def new_engine(self) -> Engine:
        settings = EngineSettings(8, MAX_SLOTS, self.deterministic, max_in_flight_steps=self.in_flight)
        return Engine(self.models, self.scheduler, settings)

    @rule(target=requests, request=requests_of_any_kind(), adapters=st.sampled_from(ADAPTERS))
    def admit(self, request: tuple[str, Generation], adapters: list[tuple[int, float]]) -> Any:
        if self.engine.free_slots() == 0:
            return multiple()
        request_id = f"request {len(self.generations)}"
        model, generation = request
        config = self.models[model].checkpoint.config
        scaled = tuple(one.to(self.device, torch.float32) for one in make_scaled(config, *adapters))
        self.generations[request_id] = model, replace(generation, adapters=scaled)
        self.engine.admit(request_id, *self.generations[request_id])
        return request_id

    @rule(seed=st.integers(0, 99), steps=st.integers(1, 5))
    def step(self, seed: int, steps: int) -> None:
        self.scheduler.random.seed(seed)
        for _ in range(steps):
            self.check(self.engine.step())

    @rule(request_id=consumes(requests))
    def evict(self, request_id: str) -> None:
        self.engine.evict(request_id)

    @rule(request_id=requests)
    def read(self, request_id: str) -> None:
        if request_id in self.engine.request_ids:
            self.engine.preview(request_id)
            self.engine.snapshot(request_id)

    @rule()
    def move(self) -> None:
        """Resume all requests in another engine, as after the loss of a worker."""
        left, self.engine = self.engine, self.new_engine()
        for request_id in left.request_ids:
            snapshot = Snapshot.from_bytes(left.snapshot(request_id).to_bytes())
            self.engine.admit(request_id, *self.generations[request_id], snapshot=snapshot)

    def teardown(self) -> None:
        self.check(run_until_done(self.engine))

    def expected(self, request_id: str) -> torch.Tensor:
        model, generation = self.generations[request_id]
        return denoise_alone(self.models[model], generation)

    def check(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Failed):
                assert isinstance(event.error, NotFiniteError)
                assert self.generations[event.request_id][1].guidance_scale == DIVERGES
                assert not self.deterministic or not self.expected(event.request_id).isfinite().all()
        for request_id, latents in latents_of(events).items():
            latents, expected = latents.cpu(), self.expected(request_id).cpu()
            if self.deterministic:
                assert torch.equal(latents, expected)
            elif self.generations[request_id][1].guidance_scale != DIVERGES:
                assert (latents - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize(
    ("deterministic", "in_flight"),
    [(True, 1), (True, 2), (False, 2)],
    ids=["bit for bit", "bit for bit, 2 steps in flight", "fast, 2 steps in flight"],
)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("device", DEVICES)
def test_latents_equal_those_of_denoise(device: str, design: str, deterministic: bool, in_flight: int) -> None:
    chosen = {"design": design, "device": device, "deterministic": deterministic, "in_flight": in_flight}
    machine = type("Machine", (EngineMachine,), chosen)
    run_state_machine_as_test(machine, settings=EXAMPLES)
