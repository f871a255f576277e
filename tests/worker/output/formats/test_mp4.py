"""The MP4s are decoded again by ffmpeg and looked at; failing encoders are real processes."""

import os
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.mp4 import decode_mp4
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import EncodeError
from worker.output.formats.mp4 import write_mp4


def moving_square(num_frames: int = 12, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(T, H, W, 3): an orange square on navy, 3 pixels further to the right in each frame."""
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    frames[:] = (16, 24, 96)
    for index in range(num_frames):
        frames[index, 12:36, 3 * index : 3 * index + 24] = (240, 140, 30)
    return frames


@pytest.mark.parametrize("fps", [8, 24, 29.97])
def test_decoded_again_it_is_the_same_video(tmp_path: Path, fps: float) -> None:
    frames = moving_square()
    write_mp4(frames, tmp_path / "out.mp4", Encoding(fps))
    decoded = decode_mp4(tmp_path / "out.mp4")
    assert decoded.frames.shape == frames.shape
    assert decoded.fps == pytest.approx(fps, abs=0.01)
    assert decoded.codec.startswith("h264")
    assert "yuv420p(tv, bt709" in decoded.codec
    # Only the halved colour planes along the square's edge may differ by more than the coding's noise.
    difference = np.abs(decoded.frames.astype(int) - frames.astype(int))
    assert difference.mean() < 3
    assert difference[0, 16:32, 4:20].max() < 12
    assert difference[-1, 16:32, 40:50].max() < 12


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    write_mp4(moving_square(1), tmp_path / "out.mp4", Encoding(8))
    assert decode_mp4(tmp_path / "out.mp4").frames.shape[0] == 1


def test_index_comes_before_the_pictures(tmp_path: Path) -> None:
    write_mp4(moving_square(), tmp_path / "out.mp4", Encoding(8))
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_mp4(moving_square(), tmp_path / name, Encoding(8))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_name_needs_no_suffix_and_may_look_like_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_mp4(moving_square(), Path("-temporary name%03d"), Encoding(8))
    assert decode_mp4(tmp_path / "-temporary name%03d").frames.shape[0] == 12


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 47, 64, 3), np.uint8, "must be even, got 47x64"),
        ((2, 48, 63, 3), np.uint8, "must be even, got 48x63"),
        ((0, 48, 64, 3), np.uint8, "T >= 1"),
        ((2, 3, 48, 64), np.uint8, "of shape"),
        ((2, 48, 64, 3), np.float32, "float32"),
    ],
)
def test_frames_that_cannot_be_encoded_are_named(
    tmp_path: Path, shape: tuple[int, ...], dtype: type, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_mp4(np.zeros(shape, dtype), tmp_path / "out.mp4", Encoding(8))


def test_fps_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got 0"):
        write_mp4(moving_square(), tmp_path / "out.mp4", Encoding(0))


def fake_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))


def test_killed_encoder_is_an_error_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_encoder(tmp_path, monkeypatch, f"echo half > {tmp_path}/out.mp4; cat > /dev/null; kill -9 $$")
    with pytest.raises(EncodeError, match="killed by signal 9"):
        write_mp4(moving_square(), tmp_path / "out.mp4", Encoding(8))
    assert not (tmp_path / "out.mp4").exists()


def test_encoder_that_stops_reading_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_encoder(tmp_path, monkeypatch, "echo no such codec >&2; exit 3")
    with pytest.raises(EncodeError, match="status 3: no such codec"):
        write_mp4(np.zeros((64, 256, 256, 3), np.uint8), tmp_path / "out.mp4", Encoding(8))


def test_missing_encoder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    with pytest.raises(EncodeError, match=r"could not be run: No such file or directory$"):
        write_mp4(moving_square(), tmp_path / "out.mp4", Encoding(8))


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"out\.mp4: No such file") as caught:
        write_mp4(moving_square(), tmp_path / "nowhere" / "out.mp4", Encoding(8))
    assert str(tmp_path) not in caught.value.message, "clients read it, and no path of the server is for them"


def test_full_disk_is_an_error_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A limit on the size of its files stands for the full disk: the encoder's writes fail half-way.
    real = imageio_ffmpeg.get_ffmpeg_exe()
    fake_encoder(tmp_path, monkeypatch, f"trap '' XFSZ; ulimit -f 2; exec {real} \"$@\"")
    noise = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    with pytest.raises(EncodeError, match=r"File too large|No space"):
        write_mp4(noise, tmp_path / "out.mp4", Encoding(8))
    assert not (tmp_path / "out.mp4").exists()


def test_encoder_stays_out_of_the_terminals_process_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = imageio_ffmpeg.get_ffmpeg_exe()
    print_group = f'{sys.executable} -c "import os; print(os.getpgrp())"'
    fake_encoder(tmp_path, monkeypatch, f'{print_group} > {tmp_path}/group; exec {real} "$@"')
    write_mp4(moving_square(), tmp_path / "out.mp4", Encoding(8))
    assert int((tmp_path / "group").read_text()) != os.getpgrp()


@pytest.mark.parametrize("num_frames", [1, 2, 16])
def test_interpolation_multiplies_the_frames_and_keeps_the_seconds(tmp_path: Path, num_frames: int) -> None:
    frames = np.zeros((num_frames, 64, 64, 3), np.uint8)
    for index in range(num_frames):
        frames[index, 24:40, 2 * index : 2 * index + 16] = 230
    write_mp4(frames, tmp_path / "out.mp4", Encoding(8, 4))
    video = decode_mp4(tmp_path / "out.mp4")
    assert (len(video.frames), video.fps) == (4 * num_frames, 32.0)
    assert np.abs(video.frames[::4].astype(int) - frames).mean() < 4
