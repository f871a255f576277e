import pytest
import torch

from training.world.renderer import HEADINGS, UNIT_AREAS, Track, coverage, render, render_at, track_of
from training.world.scenes import (
    DIRECTIONS,
    MOTIONS,
    SHAPES,
    Scene,
    Scenes,
    Split,
    draw_scenes,
    scenes_from_words,
)


def times_of(scenes: Scenes, num_frames: int = 16) -> torch.Tensor:
    return torch.linspace(0, 1, num_frames).expand(len(scenes), num_frames)


def test_videos_have_the_shape_and_range_that_models_take() -> None:
    videos = render(draw_scenes(3, seed=0), num_frames=5, size=32)
    assert videos.shape == (3, 5, 3, 32, 32)
    assert videos.dtype == torch.float32
    assert -1 <= videos.min() < videos.max() <= 1


def test_moving_shapes_cross_a_third_of_the_frame_in_their_direction() -> None:
    scenes = draw_scenes(400, seed=1, split=Split.ALL, motions=DIRECTIONS)
    center = track_of(scenes, times_of(scenes)).center
    moved = (center[:, -1] - center[:, 0]) / 2
    headings = torch.tensor([HEADINGS[scene.motion] for scene in scenes.words()], dtype=torch.float32)
    assert ((moved * headings).sum(dim=1) > 1 / 3).all()
    assert torch.allclose(moved * (1 - headings.abs()), torch.zeros_like(moved))


def test_other_motions_keep_the_position() -> None:
    scenes = draw_scenes(200, seed=2, split=Split.ALL, motions=[name for name in MOTIONS if name not in DIRECTIONS])
    center = track_of(scenes, times_of(scenes)).center
    assert torch.allclose(center, center[:, :1].expand_as(center))


def test_shapes_never_touch_the_border() -> None:
    videos = render(draw_scenes(100, seed=3, split=Split.ALL), num_frames=4)
    border = torch.cat([videos[..., 0, :], videos[..., -1, :], videos[..., 0], videos[..., -1]], dim=-1)
    assert torch.equal(border, border[..., :1].expand_as(border))


@pytest.mark.parametrize(("motion", "grows"), [("growing", True), ("shrinking", False)])
def test_growth_is_plain_to_see(motion: str, grows: bool) -> None:
    scenes = scenes_from_words([Scene("red", "square", motion, "black", "large")], seed=0)
    radius = track_of(scenes, times_of(scenes)).radius[0]
    assert ((radius.diff() > 0) == grows).all()
    assert max(radius[-1] / radius[0], radius[0] / radius[-1]) > 2


def test_later_a_shape_rests_at_the_edge_or_at_its_last_size_and_goes_on_spinning() -> None:
    scenes = draw_scenes(200, seed=5, split=Split.ALL)
    times = torch.linspace(0, 4, 61).expand(len(scenes), 61)
    videos, track = render_at(scenes, times[:, ::20]), track_of(scenes, times)
    border = torch.cat([videos[..., 0, :], videos[..., -1, :], videos[..., 0], videos[..., -1]], dim=-1)
    assert torch.equal(border, border[..., :1].expand_as(border))
    moved, grown = track.center.diff(dim=1).abs().sum(dim=2), track.radius.diff(dim=1).abs()
    motions = scenes.attributes[:, 2]
    moving = torch.isin(motions, torch.tensor([MOTIONS.index(name) for name in DIRECTIONS]))
    growing = torch.isin(motions, torch.tensor([MOTIONS.index("growing"), MOTIONS.index("shrinking")]))
    assert (moved[moving, :15] > 0).all()
    assert (moved[moving, -15:] == 0).all()
    assert (grown[growing, :15] > 0).all()
    assert (grown[growing, 15:] == 0).all()
    assert (track.angle[motions == MOTIONS.index("spinning")].diff(dim=1) > 0).all()


def test_every_spinning_shape_turns_by_nine_degrees_a_frame() -> None:
    """Less than half of a star's 72 degrees of symmetry, so that its direction is plain to see."""
    scenes = draw_scenes(100, seed=4, split=Split.ALL, motions=["spinning"])
    angle = torch.rad2deg(track_of(scenes, times_of(scenes)).angle)
    torch.testing.assert_close(angle.diff(dim=1), torch.full((100, 15), 9.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_its_area_at_any_turn(shape: str) -> None:
    """The area of the formula is that of the distance field, and soft edges take as much as they give."""
    angles, radius, size = torch.tensor([[0.0, 0.3, 1.1]]), 0.5, 128
    track = Track(torch.zeros(1, 3, 2), torch.full((1, 3), radius), angles)
    covered = coverage(torch.full((1, 3), SHAPES.index(shape)), track, size).sum(dim=(2, 3)) * (2 / size) ** 2
    assert torch.allclose(covered, torch.full_like(covered, UNIT_AREAS[shape] * radius**2), rtol=0.01)


def test_a_triangle_points_up() -> None:
    track = Track(torch.zeros(1, 1, 2), torch.full((1, 1), 0.5), torch.zeros(1, 1))
    rows = coverage(torch.full((1, 1), SHAPES.index("triangle")), track)[0, 0].sum(dim=1)
    assert rows[:32].sum() < rows[32:].sum()
    assert rows[:8].sum() < 0.1 < rows[20]


def test_a_frame_does_not_depend_on_the_others() -> None:
    scenes = draw_scenes(2, seed=5)
    alone = render_at(scenes, torch.ones(2, 1))
    assert torch.equal(alone[:, 0], render(scenes, num_frames=4)[:, -1])


def test_a_batch_is_its_scenes_one_by_one() -> None:
    scenes = draw_scenes(6, seed=6)
    together = render(scenes, num_frames=3)
    alone = torch.cat([render(scenes[index : index + 1], num_frames=3) for index in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)
