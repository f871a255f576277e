"""Whether a seam can be seen, in videos whose changes are known."""

import numpy as np

from benchmarks.parts.seams import CHANGES_AROUND, frame_changes, seams


def test_changes_are_mean_levels_from_frame_to_frame() -> None:
    video = np.zeros((3, 2, 2, 3), np.uint8)
    video[1, 0] = 10
    video[2] = 10
    assert frame_changes(video).tolist() == [5.0, 5.0]


def test_a_change_that_cannot_be_seen_passes_in_a_still_video() -> None:
    changes = np.full(23, 0.01)
    changes[15] = 0.2
    (seam,) = seams(changes, [16])
    assert (seam.place, seam.change, seam.usual) == (16, 0.2, 0.01)
    assert seam.is_smooth(1.5)
    assert not seam.is_smooth(1.5, visible_levels=0.0)
    changes[15] = 1.0
    (seam,) = seams(changes, [16])
    assert not seam.is_smooth(1.5)


def test_a_visible_change_is_compared_with_the_others() -> None:
    changes = np.full(23, 2.0)
    changes[[7, 15]] = 3.0, 3.1
    first, second = seams(changes, [8, 16])
    assert first.is_smooth(1.5)
    assert not second.is_smooth(1.5)
    assert (first.usual, second.usual) == (2.0, 2.0)  # neither seam counts as usual


def test_a_border_in_motion_is_compared_with_the_motion_around_it() -> None:
    """The shape moves for 20 frames and then rests: over the whole video, its own motion would be a fault."""
    changes = np.full(63, 0.1)
    changes[:20] = 4.0
    changes[7] = 5.0
    (near,) = seams(changes, [8], CHANGES_AROUND)
    (whole,) = seams(changes, [8])
    assert (near.usual, near.is_smooth(2.0)) == (4.0, True)
    assert (whole.usual, whole.is_smooth(2.0)) == (0.1, False)


def test_a_jump_at_rest_is_seen_although_the_video_moves_elsewhere() -> None:
    changes = np.full(63, 4.0)
    changes[40:] = 0.1
    changes[47] = 3.0
    (near,) = seams(changes, [48], CHANGES_AROUND)
    (whole,) = seams(changes, [48])
    assert not near.is_smooth(2.0)
    assert whole.is_smooth(2.0)


def test_where_both_frames_are_the_sources_its_own_change_is_usual() -> None:
    """A shape grows ever faster, then rests: what the source does at frame 8 is no fault of its extension."""
    source, changes = np.full(15, 1.0), np.full(23, 0.2)
    source[7] = changes[7] = 3.4
    changes[15] = 1.2
    start, end = seams(changes, [8, 16], of_source=source)
    assert (start.usual, end.usual) == (3.4, 0.2)
    assert start.is_smooth(1.5)
    assert not end.is_smooth(1.5)
    changes[7] = 5.2
    assert not seams(changes, [8], of_source=source)[0].is_smooth(1.5)


def test_at_the_ends_fewer_changes_are_around() -> None:
    changes = np.arange(10.0)
    (seam,) = seams(changes, [2], CHANGES_AROUND)
    assert seam.usual == np.median([0, 2, 3, 4, 5])
