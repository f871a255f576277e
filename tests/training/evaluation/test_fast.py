"""The measures are tested on renders that went through the MP4 coder, and on renders that are spoiled in one way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training.evaluation.fast.distance import FeatureSpace, frechet_distance, motion_energy
from training.evaluation.fast.intervals import bootstrap, share
from training.evaluation.fast.paths import Path as LegalPath
from training.evaluation.fast.paths import fit_path
from training.evaluation.fast.scores import score_video
from training.evaluation.mp4 import read_mp4
from training.world.fast.renderer import render_fast
from training.world.fast.scenes import FastScenes, draw_fast_scenes
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4

Frames = NDArray[np.uint8]


def frames_of(scenes: FastScenes) -> Frames:
    videos: Frames = ((render_fast(scenes) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return videos


def test_rendered_truth_is_read_without_errors_from_mp4s(tmp_path: Path) -> None:
    drawn = draw_fast_scenes(24, seed=78)
    scenes = FastScenes(drawn.attributes[:12], drawn.paths[:12])
    identities = []
    for scene, frames in zip(scenes.words(), frames_of(scenes), strict=True):
        write_mp4(frames, tmp_path / "scene.mp4", Encoding(8))
        score = score_video(read_mp4(tmp_path / "scene.mp4"), scene)
        assert set(score.right.values()) == {1.0}, (scene, score)
        assert score.position_error_pixels < 0.5
        assert score.followed
        assert score.speed_spread is None or score.speed_spread < 0.2
        identities.append(score.identity)
    assert False not in identities
    assert identities.count(True) > 6


def test_wrong_words_are_wrong() -> None:
    scenes = draw_fast_scenes(1, seed=6)
    [scene], [frames] = scenes.words(), frames_of(scenes)
    right = score_video(frames, scene).right
    front = scene.front
    other = replace(
        front,
        shape="square" if front.shape != "square" else "circle",
        pattern="plain" if front.pattern != "plain" else "dotted",
        direction="moving left" if front.direction != "moving left" else "moving right",
    )
    wrong = score_video(frames, replace(scene, front=other, background="other", pace="other")).right
    assert {name: right[name] - wrong[name] for name in ("shape", "pattern", "direction")} == {
        "shape": 0.5,
        "pattern": 0.5,
        "direction": 0.5,
    }
    assert wrong["background"] == 0
    assert score_video(frames, replace(scene, front=scene.back, back=scene.front)).right["order"] == 0


def test_a_pattern_that_changes_behind_the_other_object_loses_identity() -> None:
    scenes = draw_fast_scenes(4, seed=10)
    num_seen = 0
    changed = scenes.attributes.clone()
    changed[:, 8] = (changed[:, 8] + 1) % 3  # the back object's pattern
    late = frames_of(FastScenes(changed, scenes.paths))
    for scene, first, second in zip(scenes.words(), frames_of(scenes), late, strict=True):
        if score_video(first, scene).identity:
            assert score_video(np.concatenate([first[:16], second[16:]]), scene).identity is False
            num_seen += 1
    assert num_seen > 1


def test_a_jumping_object_is_on_no_legal_path_and_has_no_constant_speed() -> None:
    scenes = draw_fast_scenes(1, seed=6)
    [scene], [frames] = scenes.words(), frames_of(scenes)
    order = np.random.default_rng(0).permutation(32)
    kept, shuffled = score_video(frames, scene), score_video(frames[order], scene)
    assert shuffled.position_error_pixels > 10 * kept.position_error_pixels
    assert not shuffled.followed
    assert (shuffled.speed_spread or 1.0) > 2 * (kept.speed_spread or 0.0)


def test_noise_shows_no_objects_and_is_wrong() -> None:
    [scene] = draw_fast_scenes(1, seed=6).words()
    score = score_video(np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8), scene)
    assert score.position_error_pixels > 10
    assert score.identity is not True
    assert not score.followed


def test_a_path_is_found_again_from_some_of_its_frames() -> None:
    path = LegalPath(axis=1, phase=0.7, speed=0.26, across=-0.3)
    times = np.delete(np.arange(32.0), [3, 4, 11, 20])
    found = fit_path(times, path.at(times))
    assert found.axis == 1
    assert found.speed == pytest.approx(0.26, abs=1e-3)
    assert np.abs(found.at(np.arange(32.0)) - path.at(np.arange(32.0))).max() < 0.01
    assert found.first_directions() == {"moving down"}


def test_the_distance_is_small_for_the_same_world_and_large_for_other_motion() -> None:
    def features(videos: Frames) -> NDArray[np.float64]:
        return np.stack([motion_energy(frames) for frames in videos])

    of_real, others = features(frames_of(draw_fast_scenes(40, seed=1))), frames_of(draw_fast_scenes(40, seed=2))
    space = FeatureSpace.of(of_real, num_components=12)
    real = space.project(of_real)
    same = frechet_distance(space.project(features(others)), real)
    slower = frechet_distance(space.project(features(others[:, np.arange(32) // 2])), real)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-3)
    assert slower > 2 * same


def test_intervals() -> None:
    some = share([True] * 90 + [False] * 10)
    assert some.value == 0.9
    assert (some.low, some.high) == (pytest.approx(0.826, abs=1e-3), pytest.approx(0.945, abs=1e-3))
    assert share([True] * 500).high == 1
    middle = bootstrap(np.arange(101.0), lambda rows: float(rows.mean()))
    assert middle.value == 50
    assert middle.low == pytest.approx(44.3, abs=1.5)
    assert torch.isfinite(torch.tensor(middle.high))
