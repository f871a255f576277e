"""Whatever happens around a request, its latents are those of the plain loop: random schedules against `denoise`."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from models.generate import Generation
from models.sampling.samplers import SAMPLERS
from tests.worker.engines import (
    DESIGNS,
    DEVICES,
    RandomPolicy,
    alone,
    latents_of,
    make_generation,
    make_models,
    run_out,
)
from worker.engine import Engine, EngineSettings, Event, Failed
from worker.errors import NotFiniteError
from worker.snapshot import Snapshot

SEATS = 8
DIVERGES = 3e38  # but where the negative condition is the condition
EXAMPLES = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a schedule that fails is short as it comes, and to find a shorter one takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@st.composite
def wishes(draw: st.DrawFn) -> tuple[str, Generation]:
    model = draw(st.sampled_from(["text", "text", "text", "class", "none"]))  # mostly those that can share a pass
    return model, make_generation(
        model,
        seed=draw(st.integers(0, 3)),
        num_inference_steps=draw(st.integers(1, 6)),
        guidance_scale=draw(st.sampled_from([1.0, 0.0, 3.0, 7.5, DIVERGES])),
        sampler=draw(st.sampled_from(SAMPLERS)),
        num_frames=draw(st.sampled_from([3, 3, 3, 2])),
        condition=draw(st.integers(0, 4)),
        negative=draw(st.integers(0, 4)),
    )


class Schedules(RuleBasedStateMachine):
    """Requests come, run in random company, are moved to another engine by a snapshot, are cancelled, fail, and end."""

    design: str
    device: str
    deterministic: bool
    ahead: bool
    requests: Any = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.models = make_models(self.design, self.device)
        self.engine = self.new_engine()
        self.wishes: dict[str, tuple[str, Generation]] = {}

    def new_engine(self) -> Engine:
        engine = Engine(self.models, RandomPolicy(), EngineSettings(8, SEATS, self.deterministic))
        if self.ahead:  # as on CUDA: a step is given to the device before the last one has been looked at
            engine._takes_more = lambda: len(engine._under_way) < 2  # type: ignore[method-assign]
        return engine

    @rule(target=requests, wish=wishes())
    def admit(self, wish: tuple[str, Generation]) -> Any:
        if self.engine.free_seats() == 0:
            return multiple()
        request_id = f"request {len(self.wishes)}"
        self.wishes[request_id] = wish
        self.engine.admit(request_id, *wish)
        return request_id

    @rule(seed=st.integers(0, 99), steps=st.integers(1, 5))
    def step(self, seed: int, steps: int) -> None:
        self.engine._policy.random.seed(seed)  # type: ignore[attr-defined]
        for _ in range(steps):
            self.check(self.engine.step())

    @rule(request_id=consumes(requests))
    def cancel(self, request_id: str) -> None:
        self.engine.evict(request_id)

    @rule(request_id=requests)
    def look(self, request_id: str) -> None:
        if request_id in self.engine._seats:
            self.engine.preview(request_id)
            self.engine.snapshot(request_id)

    @rule()
    def move(self) -> None:
        """All of them go on in another engine, as after the loss of a worker."""
        left, self.engine = self.engine, self.new_engine()
        for request_id in left._seats:
            snapshot = Snapshot.from_bytes(left.snapshot(request_id).to_bytes())
            self.engine.admit(request_id, *self.wishes[request_id], snapshot=snapshot)

    def teardown(self) -> None:
        self.check(run_out(self.engine))

    def expected(self, request_id: str) -> torch.Tensor:
        model, generation = self.wishes[request_id]
        return alone(self.models[model], generation)

    def check(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Failed):
                assert isinstance(event.error, NotFiniteError)
                assert self.wishes[event.request_id][1].guidance_scale == DIVERGES
                assert not self.deterministic or not self.expected(event.request_id).isfinite().all()
        for request_id, latents in latents_of(events).items():
            latents, expected = latents.cpu(), self.expected(request_id).cpu()
            if self.deterministic:
                assert torch.equal(latents, expected)
            elif self.wishes[request_id][1].guidance_scale != DIVERGES:
                assert (latents - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize(
    ("deterministic", "ahead"),
    [(True, False), (True, True), (False, True)],
    ids=["bit for bit", "bit for bit, a step ahead", "fast, a step ahead"],
)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("device", DEVICES)
def test_a_request_gives_what_it_gives_alone(device: str, design: str, deterministic: bool, ahead: bool) -> None:
    chosen = {"design": design, "device": device, "deterministic": deterministic, "ahead": ahead}
    machine = type("Machine", (Schedules,), chosen)
    run_state_machine_as_test(machine, settings=EXAMPLES)
