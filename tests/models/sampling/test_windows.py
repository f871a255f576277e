import pytest
import torch

from models.sampling.windows import Windows


@pytest.mark.parametrize(
    ("num_frames", "starts"),
    [
        (1, (0,)),
        (16, (0,)),
        (17, (0, 1)),
        (24, (0, 8)),
        (32, (0, 8, 16)),
        (33, (0, 8, 16, 17)),
        (64, (*range(0, 49, 8),)),
    ],
)
def test_windows_cover_the_video_and_end_with_it(num_frames: int, starts: tuple[int, ...]) -> None:
    windows = Windows.of(num_frames, 16)
    assert windows.starts == starts
    assert windows.length == min(num_frames, 16)
    covered = {frame for start in windows.starts for frame in range(start, start + windows.length)}
    assert covered == set(range(num_frames))


def test_cutting_and_averaging_gives_the_video_back() -> None:
    video = torch.randn(1, 41, 2, 3, 3)
    windows = Windows.of(41, 16, stride=5)
    assert windows.cut(video).shape == (len(windows), 16, 2, 3, 3)
    torch.testing.assert_close(windows.average(windows.cut(video)), video)


def test_a_window_counts_most_in_its_middle() -> None:
    windows = Windows.of(24, 16)
    ones = torch.stack([torch.ones(16, 1, 1, 1), torch.zeros(16, 1, 1, 1)])
    share = windows.average(ones).flatten()
    assert share[:8].tolist() == [1.0] * 8
    assert share[16:].tolist() == [0.0] * 8
    assert (share[8:16].diff() < 0).all()


@pytest.mark.parametrize(("num_frames", "stride"), [(0, 8), (20, 0), (20, 17)])
def test_windows_that_cannot_be_are_refused(num_frames: int, stride: int) -> None:
    with pytest.raises(ValueError, match="got"):
        Windows.of(num_frames, 16, stride)
