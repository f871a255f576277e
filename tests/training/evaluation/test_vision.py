"""The reader is tested on renders that went through the MP4 coder: what it measures later is then the model's doing."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation.mp4 import read_mp4
from training.evaluation.vision import read_attributes, read_shapes
from training.world.renderer import render
from training.world.scenes import BACKGROUNDS, COLORS, MOTIONS, SHAPES, SIZES, Scene, Scenes, scenes_from_words
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4


def frames_of(scenes: Scenes) -> NDArray[np.uint8]:
    videos: NDArray[np.uint8] = ((render(scenes) + 1) * 127.5).round().byte().permute(0, 1, 3, 4, 2).numpy()
    return videos


@pytest.mark.parametrize("shape", SHAPES)
def test_every_motion_shape_color_and_background_is_read_from_an_mp4(shape: str, tmp_path: Path) -> None:
    others = zip(MOTIONS, COLORS, itertools.cycle(BACKGROUNDS), itertools.cycle(SIZES), strict=False)
    asked = [Scene(color, shape, motion, background, size) for motion, color, background, size in others]
    for scene, frames in zip(asked, frames_of(scenes_from_words(asked, seed=1)), strict=True):
        write_mp4(frames, tmp_path / "scene.mp4", Encoding(8))
        seen = read_attributes(read_mp4(tmp_path / "scene.mp4"))
        assert seen is not None
        assert all(seen.matches(scene).values()), (scene, seen)


def test_the_measures_are_those_of_the_scene() -> None:
    [frames] = frames_of(scenes_from_words([Scene("red", "star", "moving left", "black", "large")], seed=0))
    seen = read_attributes(frames)
    assert seen is not None
    right, down = seen.displacement
    assert -0.7 < right < -0.35
    assert abs(down) < 0.01
    assert seen.growth == pytest.approx(1, abs=0.03)
    assert seen.likeness > 0.9


def test_a_video_played_backwards_moves_the_other_way() -> None:
    [frames] = frames_of(scenes_from_words([Scene("cyan", "square", "growing", "gray", "small")], seed=0))
    forwards, backwards = read_attributes(frames), read_attributes(frames[::-1])
    assert forwards is not None
    assert backwards is not None
    assert (forwards.motion, backwards.motion) == ("growing", "shrinking")


def test_a_wrong_scene_does_not_match() -> None:
    scene = Scene("green", "triangle", "moving up", "navy", "large")
    [frames] = frames_of(scenes_from_words([scene], seed=0))
    seen = read_attributes(frames)
    assert seen is not None
    other = Scene("blue", "square", "moving down", "brown", "small")
    assert not any(seen.matches(other).values())


def test_specks_beside_the_shape_are_not_taken_for_it() -> None:
    scene = Scene("yellow", "circle", "moving right", "black", "large")
    [frames] = frames_of(scenes_from_words([scene], seed=0))
    speckled = frames.copy()
    speckled[:, 3:6, 3:6] = COLORS["yellow"]
    clean, seen = read_attributes(frames), read_attributes(speckled)
    assert clean is not None
    assert seen is not None
    assert all(seen.matches(scene).values())
    assert seen.displacement == pytest.approx(clean.displacement, abs=0.01)


def test_an_empty_video_shows_nothing() -> None:
    assert read_attributes(np.full((16, 64, 64, 3), 90, np.uint8)) is None


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_noise_coarse_or_fine_shows_nothing(pixels: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 64 // pixels, 64 // pixels, 3), np.uint8)
    assert read_attributes(noise.repeat(pixels, axis=1).repeat(pixels, axis=2)) is None


@pytest.mark.parametrize("size", [(16, 64, 48, 3), (16, 64, 64), (1, 64, 64, 3)])
def test_other_arrays_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square RGB"):
        read_attributes(np.zeros(size, np.uint8))


def test_a_spinning_shape_has_the_same_points_in_all_frames(tmp_path: Path) -> None:
    asked = [Scene("red", shape, "spinning", "black", "small") for shape in SHAPES]
    for scene, frames in zip(asked, frames_of(scenes_from_words(asked, seed=2)), strict=True):
        write_mp4(frames, tmp_path / "scene.mp4", Encoding(8))
        assert read_shapes(read_mp4(tmp_path / "scene.mp4")) == 16 * [scene.shape]


def test_a_shape_that_becomes_another_is_seen() -> None:
    star, square = frames_of(
        scenes_from_words([Scene("red", shape, "staying still", "black", "large") for shape in ("star", "square")], 0)
    )
    assert read_shapes(np.concatenate([star[:3], square[:2]])) == 3 * ["star"] + 2 * ["square"]


def test_nothing_has_no_shape() -> None:
    assert read_shapes(np.zeros((4, 64, 64, 3), np.uint8)) == []
