import pytest
import torch

from training.world.scenes import (
    CLASS_NAMES,
    COLORS,
    DIRECTIONS,
    HELD_OUT,
    MOTIONS,
    SHAPES,
    Scene,
    Split,
    combinations_of,
    draw_scenes,
)


def test_a_tenth_of_the_combinations_is_held_out_and_never_drawn_for_training() -> None:
    assert len(HELD_OUT) == round(len(COLORS) * len(SHAPES) * len(MOTIONS) / 10)
    drawn = {(scene.color, scene.shape, scene.motion) for scene in draw_scenes(5000, seed=0).words()}
    assert drawn == set(combinations_of(Split.TRAINING))
    assert not drawn & HELD_OUT


def test_held_out_scenes_are_drawn_from_the_held_out_combinations_only() -> None:
    drawn = draw_scenes(1000, seed=0, split=Split.HELD_OUT).words()
    assert {(scene.color, scene.shape, scene.motion) for scene in drawn} == HELD_OUT


def test_every_word_and_every_class_is_left_in_training() -> None:
    colors, shapes, motions = zip(*combinations_of(Split.TRAINING), strict=True)
    assert (set(colors), set(shapes), set(motions)) == (set(COLORS), set(SHAPES), set(MOTIONS))
    assert {scene.class_label for scene in draw_scenes(2000, 0, motions=DIRECTIONS).words()} == set(range(16))


def test_the_same_seed_draws_the_same_scenes_and_another_seed_others() -> None:
    first, again, other = draw_scenes(50, 3), draw_scenes(50, 3), draw_scenes(50, 4)
    assert torch.equal(first.attributes, again.attributes)
    assert torch.equal(first.jitters, again.jitters)
    assert not torch.equal(first.jitters, other.jitters)


def test_a_scene_is_its_row_and_back() -> None:
    scene = Scene("cyan", "star", "moving down", "navy", "small")
    assert Scene.from_row(scene.to_row()) == scene
    assert CLASS_NAMES[scene.class_label] == "star-down"


def test_a_scene_that_does_not_move_has_no_class() -> None:
    with pytest.raises(ValueError, match="spinning"):
        _ = Scene("cyan", "star", "spinning", "navy", "small").class_label
