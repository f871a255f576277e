import random

import pytest
import torch

from training.world.fast.prompts import canonical, describe
from training.world.fast.renderer import render_fast
from training.world.fast.scenes import COLUMNS, PACES, REACH, FastScene, Thing, centers_at, draw_fast_scenes

SCENES = draw_fast_scenes(64, seed=3)
TIMES = torch.arange(32.0).expand(64, -1)


def test_objects_stay_inside_and_move_at_their_pace_between_bounces() -> None:
    centers = centers_at(SCENES, TIMES)
    assert centers.abs().max() <= REACH + 1e-5
    steps = centers.diff(dim=1).norm(dim=-1)
    speeds = steps.amax(dim=1)
    for row, scene in enumerate(SCENES.words()):
        assert speeds[row].tolist() == pytest.approx([PACES[scene.pace]] * 2, rel=0.11)


def test_the_words_of_a_direction_are_those_of_the_first_movement() -> None:
    centers = centers_at(SCENES, torch.tensor([0.0, 1e-3]).expand(64, -1))
    moved = centers[:, 1] - centers[:, 0]
    signs = {"moving left": (0, -1), "moving right": (0, 1), "moving up": (1, -1), "moving down": (1, 1)}
    for row, scene in enumerate(SCENES.words()):
        for index, thing in enumerate((scene.front, scene.back)):
            axis, sign = signs[thing.direction]
            assert moved[row, index, axis] * sign > 0
            assert moved[row, index, 1 - axis] == 0


def test_the_objects_meet_in_every_video() -> None:
    centers = centers_at(SCENES, torch.arange(0, 31, 0.1).expand(64, -1))
    nearest = (centers[:, :, 0] - centers[:, :, 1]).norm(dim=-1).amin(dim=1)
    assert nearest.max() < 0.2


def test_the_front_object_hides_the_back_one() -> None:
    scenes = SCENES[:1]
    meeting = scenes.paths.clone()
    meeting[:, 1] = meeting[:, 0]  # the same path: the front object covers the back one
    attributes = scenes.attributes.clone()
    attributes[:, 5], attributes[:, 9] = 1, 1  # both move right
    attributes[:, 3], attributes[:, 7] = 1, 0  # a square over a circle
    both = type(scenes)(attributes, meeting)
    alone = attributes.clone()
    alone[:, 6] = alone[:, 2]
    alone[:, 8] = alone[:, 4]
    assert (render_fast(both, 4) - render_fast(type(scenes)(alone, meeting), 4)).abs().mean() < 0.01


def test_sixteen_frames_are_the_first_of_thirty_two() -> None:
    scenes = SCENES[:2]
    assert torch.equal(render_fast(scenes, 16), render_fast(scenes, 32)[:, :16])


def test_a_prompt_names_every_attribute_and_says_which_object_is_in_front() -> None:
    scene = FastScene(
        "black",
        "quickly",
        Thing("red", "circle", "striped", "moving right"),
        Thing("cyan", "square", "plain", "moving up"),
    )
    assert canonical(scene) == (
        "a striped red circle moving right quickly in front of a plain cyan square moving up, on a black background"
    )


def test_a_wording_omits_only_what_its_targets_leave_open() -> None:
    rng = random.Random(0)
    [scene] = draw_fast_scenes(1, seed=0).words()
    wordings = [describe(scene, rng) for _ in range(200)]
    assert len({wording.text for wording in wordings}) > 50
    said = scene.words()
    for wording in wordings:
        for (name, words), target in zip(COLUMNS.items(), wording.targets(), strict=True):
            assert target == (len(words) if wording.said[name] is None else words.index(said[name]))
    assert any(wording.said["pace"] is None for wording in wordings)
