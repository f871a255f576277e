"""Rows that several processes share: the same latents as on one, bit for bit, with real rank processes over gloo."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from models.conditioning import Condition
from models.generate import Generation
from tests.models.adapters.adapter_folders import make_scaled
from tests.worker.engines import (
    DESIGNS,
    FullBatchScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_models,
    run_until_done,
)
from worker.engine.engine import Engine, EngineSettings, Failed
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.snapshot import Snapshot

Requests = Sequence[tuple[str, Generation]]


def new_engine(design: str, ranks: RankGroup, deterministic: bool = True) -> Engine:
    engine = Engine(make_models(design), FullBatchScheduler(), EngineSettings(8, 8, deterministic), ranks=ranks)
    engine.warm_up(max_seconds=20)
    return engine


def shared_passes(ranks: RankGroup, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The rows of each process in all passes that are shared from now on."""
    counts: list[tuple[int, ...]] = []
    run = ranks.run

    def count(transformer, inputs, split, graphs):  # type: ignore[no-untyped-def]
        counts.append(split.counts)
        return run(transformer, inputs, split, graphs)

    monkeypatch.setattr(ranks, "run", count)
    return counts


def run(engine: Engine, requests: Requests) -> dict[str, torch.Tensor]:
    for number, (model, generation) in enumerate(requests):
        engine.admit(str(number), model, generation)
    return latents_of(run_until_done(engine))


@pytest.mark.parametrize("design", DESIGNS)
def test_a_deterministic_video_is_the_same_bit_for_bit(
    design: str, ranks: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guided and unguided requests of all kinds, with known frames, an edit, windows and a speed plan."""
    engine = new_engine(design, ranks)
    passes = shared_passes(ranks, monkeypatch)
    requests = [
        ("class", make_generation("class", seed=1, num_frames=4)),
        ("class", make_generation("class", seed=2, num_frames=4, guidance_scale=1.0)),
        ("class", make_generation("class", seed=3, num_frames=4, known=[0, 2])),
        ("class", make_generation("class", seed=4, num_frames=7)),
        ("text", make_generation("text", seed=5, num_frames=4, condition=1)),
        ("text", make_generation("text", seed=6, num_frames=4, strength=0.7, condition=2)),
        ("none", replace(make_generation("none", seed=7, num_frames=4, sampler="ddim"), plan="2112")),
    ]
    latents = run(engine, requests)
    for number, (model, generation) in enumerate(requests):
        assert torch.equal(latents[str(number)], denoise_alone(make_models(design)[model], generation))
    exact = [
        ranks.exact.get(make_models(design)[model].checkpoint.transformer, {}) for model in make_models(design).loaded
    ]
    assert all(is_exact for shapes in exact for is_exact in shapes.values())
    assert all(len(counts) == ranks.size and sum(counts) > max(counts) for counts in passes)
    assert len(passes) >= 4 * 5  # steps of the guided requests


@pytest.mark.parametrize("design", DESIGNS)
def test_mixed_batches_agree_with_requests_alone(
    design: str, ranks: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(design, ranks, deterministic=False)
    passes = shared_passes(ranks, monkeypatch)
    requests = [
        ("text", make_generation("text", seed=seed, num_frames=4, guidance_scale=scale, condition=seed))
        for seed, scale in enumerate((1.0, 3.0, 7.5, 1.0, 3.0))
    ]
    latents = run(engine, requests)
    for number, (model, generation) in enumerate(requests):
        expected = denoise_alone(make_models(design)[model], generation)
        assert (latents[str(number)] - expected).norm() < 1e-5 * expected.norm()
    assert max(sum(counts) for counts in passes) == 8  # all rows in one pass
    assert all(max(counts) - min(counts) <= 1 for counts in passes)


def test_requests_with_adapters_run_on_the_leader_alone(ranks: RankGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new_engine("hybrid", ranks)
    passes = shared_passes(ranks, monkeypatch)
    adapters = tuple(make_scaled(make_models("hybrid")["class"].checkpoint.config, (0, 1.0)))
    generation = replace(make_generation("class", num_frames=4), adapters=adapters)
    latents = run(engine, [("class", generation)])
    assert torch.equal(latents["0"], denoise_alone(make_models("hybrid")["class"], generation))
    assert passes == []


def test_a_snapshot_of_a_group_resumes_without_it_and_the_other_way_round(ranks: RankGroup) -> None:
    models, generation = make_models("matrix"), make_generation("class", num_frames=4, num_inference_steps=6)
    expected = denoise_alone(models["class"], generation)
    engines = [new_engine("matrix", ranks), Engine(models, FullBatchScheduler(), EngineSettings(deterministic=True))]
    for here, there in (engines, reversed(engines)):
        here.admit("video", "class", generation)
        for _ in range(3):
            here.step()
        snapshot = Snapshot.from_bytes(here.snapshot("video").to_bytes())
        here.evict("video")
        there.admit("video", "class", generation, snapshot)
        assert torch.equal(latents_of(run_until_done(there))["video"], expected)


def test_a_leader_without_memory_for_its_part_tries_again_and_the_group_goes_on(
    ranks: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks drop what they have computed."""
    engine = new_engine("local", ranks, deterministic=False)
    transformer = make_models("local")["class"].checkpoint.transformer
    failures = [torch.OutOfMemoryError("no memory"), torch.OutOfMemoryError("no memory")]
    forward = transformer.forward

    def fail_twice(*arguments: Any) -> torch.Tensor:
        if failures and arguments[4:] != ():
            raise failures.pop()
        return forward(*arguments)

    generation = make_generation("class", num_frames=4)
    with monkeypatch.context() as patch:
        patch.setattr(transformer, "forward", fail_twice)
        latents = run(engine, [("class", generation)])
    expected = denoise_alone(make_models("local")["class"], generation)
    assert not failures
    assert (latents["0"] - expected).norm() < 1e-5 * expected.norm()


def test_a_rank_that_fails_names_itself_and_fails_the_request_only(
    ranks: RankGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label that the model does not have, which the leader is kept from seeing."""
    engine = new_engine("local", ranks, deterministic=False)
    transformer = make_models("local")["class"].checkpoint.transformer
    generation, wrong = (make_generation("class", num_frames=4) for _ in range(2))
    wrong = replace(wrong, negative=Condition(labels=torch.tensor([99])))
    with monkeypatch.context() as patch:
        patch.setattr(transformer, "_check", lambda *arguments: None)
        patch.setattr(transformer.label_embedding, "forward", lambda labels: torch.zeros(len(labels), 16))
        patch.setattr(Generation, "check", lambda *arguments: None)
        engine.admit("wrong", "class", wrong)
        [failed] = [event for event in run_until_done(engine) if isinstance(event, Failed)]
    assert "rank 1 on cpu" in str(failed.error)
    assert "classes 0..2" in str(failed.error)
    latents = run(engine, [("class", generation)])
    expected = denoise_alone(make_models("local")["class"], generation)
    assert (latents["0"] - expected).norm() < 1e-5 * expected.norm()
