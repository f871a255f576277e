"""Frames that several processes share: the latents of one process within a bound, over gloo."""

from dataclasses import replace

import pytest
import torch

from models.config import AttentionMode, Conditioning, Layout
from models.generate import Generation
from tests.models.transformers import make_condition, make_config, make_latents, make_transformer
from tests.worker.engines import (
    DESIGNS,
    FullBatchScheduler,
    denoise_alone,
    latents_of,
    make_generation,
    make_models,
    run_until_done,
)
from worker.engine.engine import Engine, EngineSettings
from worker.engine.ranks.part import PassInputs
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.ranks.shared_pass import SharedPass
from worker.engine.ranks.split import PassShape, split_frames

# Of float32: sums of products are added in another order.
BOUND = 1e-5


@pytest.fixture
def by_frames(ranks: RankGroup, monkeypatch: pytest.MonkeyPatch) -> RankGroup:
    monkeypatch.setattr(ranks, "min_frame_tokens", 0)
    return ranks


@pytest.fixture
def splits(by_frames: RankGroup, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the passes of the test are shared."""
    axes: list[str] = []
    run = by_frames.run

    def count(transformer, inputs, split, graphs):  # type: ignore[no-untyped-def]
        axes.append(split.axis)
        return run(transformer, inputs, split, graphs)

    monkeypatch.setattr(by_frames, "run", count)
    return axes


@pytest.mark.parametrize("conditioning", Conditioning)
@pytest.mark.parametrize(("rows", "num_frames"), [(1, 8), (2, 7), (3, 3)])
@pytest.mark.parametrize("design", DESIGNS)
@torch.no_grad()
def test_outputs_agree_with_those_of_one_process(
    design: str, rows: int, num_frames: int, conditioning: Conditioning, ranks: RankGroup
) -> None:
    """Numbers of frames that cannot be divided evenly, and with three processes fewer heads than processes."""
    config = make_config(conditioning, num_frames=8, **DESIGNS[design])
    transformer = make_transformer(config).eval().requires_grad_(False)
    latents, condition = make_latents(config, rows, num_frames), make_condition(config, rows)
    timesteps = torch.linspace(1, 999, rows)
    split = split_frames(PassShape(rows, num_frames, 0), ranks.size)
    assert split is not None
    shared = ranks.run(transformer, PassInputs.of(latents, timesteps, condition), split, None)
    expected = transformer(latents, timesteps, condition)
    assert shared.shape == expected.shape
    assert (shared - expected).norm() < BOUND * expected.norm()


@pytest.mark.parametrize("design", DESIGNS)
def test_latents_of_a_video_agree_with_those_of_one_process(
    design: str, by_frames: RankGroup, splits: list[str]
) -> None:
    engine = Engine(make_models(design), FullBatchScheduler(), EngineSettings(), ranks=by_frames)
    generation = make_generation("class", num_frames=4, guidance_scale=1.0, num_inference_steps=6)
    engine.admit("video", "class", generation)
    latents = latents_of(run_until_done(engine))["video"]
    expected = denoise_alone(make_models(design)["class"], generation)
    assert splits == ["frames"] * 6
    assert (latents - expected).norm() < 10 * BOUND * expected.norm()


def run_alone(ranks: RankGroup, generation: Generation, deterministic: bool = False) -> None:
    engine = Engine(
        make_models("local"), FullBatchScheduler(), EngineSettings(deterministic=deterministic), ranks=ranks
    )
    engine.admit("video", "class", generation)
    assert latents_of(run_until_done(engine))


def test_frames_are_shared_only_where_rows_leave_a_device_without_work(
    by_frames: RankGroup, splits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guided = make_generation("class", num_frames=4, num_inference_steps=1)
    single = replace(guided, guidance_scale=1.0, negative=None)
    run_alone(by_frames, guided)
    assert splits == ["rows" if by_frames.size == 2 else "frames"]
    splits.clear()
    run_alone(by_frames, replace(single, num_frames=1))
    run_alone(by_frames, single, deterministic=True)
    assert splits == []
    monkeypatch.setattr(by_frames, "min_frame_tokens", 10**6)
    run_alone(by_frames, single)
    assert splits == []


def test_joint_attention_in_flash_mode_is_shared_by_rows_only(by_frames: RankGroup) -> None:
    config = make_config(**{**DESIGNS["joint"], "layout": Layout.JOINT, "attention_mode": AttentionMode.FLASH})
    shared = SharedPass(by_frames, make_transformer(config), deterministic=False, graphs=None)
    assert not shared.divides(PassShape(1, 4, 0))
    assert shared.divides(PassShape(2, 4, 0))
