"""Files that clients send, good and hostile, decoded by the real ffmpeg."""

import io
import os
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from jobs.errors import InvalidRequestError
from server.references.decoder import DecodedFrames, DecoderLimits, decode
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4

TIGHT = DecoderLimits(max_pixels=1 << 20, max_frames=50, timeout_seconds=20.0)


def decoded(content: bytes, limits: DecoderLimits = TIGHT, fps: int | None = 8) -> DecodedFrames:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return decode(file, "input_reference", 64, 64, fps=fps, limits=limits)


def pixels_of(frames: DecodedFrames) -> np.ndarray:
    return np.frombuffer(frames.rgb, np.uint8).reshape(frames.num_frames, frames.height, frames.width, 3)


def image_bytes(kind: str, size: tuple[int, int] = (200, 100)) -> bytes:
    """Red in the middle, blue at the left and right edge, which a centre crop to a square removes."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (size[0] // 4, 0, 3 * size[0] // 4, size[1]))
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def video_bytes(folder: Path, *options: str, name: str = "a.mp4", num_frames: int = 12) -> bytes:
    frames = np.zeros((num_frames, 48, 64, 3), np.uint8)
    frames[..., 1] = np.linspace(0, 240, num_frames, dtype=np.uint8)[:, None, None]
    write_mp4(frames, folder / "plain.mp4", Encoding(24))
    if name == "plain.mp4":
        return (folder / name).read_bytes()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-i", str(folder / "plain.mp4")]
    subprocess.run([*command, *options, str(folder / name)], check=True)
    return (folder / name).read_bytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images_are_cropped_to_the_centre(kind: str) -> None:
    (frame,) = pixels_of(decoded(image_bytes(kind)))
    assert np.abs(frame[4:-4, 4:-4].astype(int) - [255, 0, 0]).max() < 40


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.mp4", ()),
        ("a.webm", ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-b:v", "1M")),
        ("a.gif", ()),
    ],
)
def test_videos_are_resampled(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    frames = pixels_of(decoded(video_bytes(tmp_path, *options, name=name)))
    assert 3 <= len(frames) <= 5  # half a second at 8 frames per second
    assert (np.diff(frames[..., 1].mean(axis=(1, 2))) > 0).all()


def test_every_second_frame_is_taken(tmp_path: Path) -> None:
    content = video_bytes(tmp_path, name="plain.mp4")
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        assert decode(file, "video", 64, 48, every=2).num_frames == 6


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size, with a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def many_frames_gif(num_frames: int = 5000) -> bytes:
    """A small file that decodes to many large frames."""
    content = io.BytesIO()
    frames = [Image.new("P", (1000, 1000), index % 2) for index in range(4)]
    frames[0].save(content, "GIF", save_all=True, append_images=frames[1:], duration=20, loop=0)
    whole = content.getvalue()
    start = whole.index(b"\x21\xf9")
    return whole[:start] + whole[start:-1] * (num_frames // 4) + b";"


HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "huge header": png_header(100_000, 100_000),
    "large header": png_header(2_000, 2_000),
    "cut png": image_bytes("PNG")[:60],
    "noise as mp4": b"\x00\x00\x00\x20ftypisom" + os.urandom(4000),
    "noise as webm": b"\x1a\x45\xdf\xa3" + os.urandom(4000),
    "noise as gif": b"GIF89a" + os.urandom(4000),
    "noise as webp": b"RIFF\x00\x10\x00\x00WEBP" + os.urandom(4000),
    "playlist as mp4": b"\x00\x00\x00\x14ftyp#EXTM3U\nhttp://127.0.0.1:1/\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_an_invalid_request(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decoded(HOSTILE[name])
    assert caught.value.param == "input_reference"
    assert "/etc/passwd" not in caught.value.message


def test_a_truncated_video_is_an_invalid_request(tmp_path: Path) -> None:
    content = video_bytes(tmp_path, name="plain.mp4")
    with pytest.raises(InvalidRequestError, match="broken MP4"):
        decoded(content[: len(content) // 2])


def test_a_video_that_names_another_file_does_not_open_it(tmp_path: Path) -> None:
    """A data reference of an MP4 can hold a path."""
    content = bytearray(video_bytes(tmp_path, name="plain.mp4"))
    place = content.index(b"url \x00\x00\x00\x01")
    content[place + 4 : place + 8] = b"\x00\x00\x00\x00"  # not self-contained
    try:
        frames = decoded(bytes(content))
    except InvalidRequestError:
        return
    assert frames.num_frames <= TIGHT.max_frames


def test_frames_are_bounded() -> None:
    assert decoded(many_frames_gif(), fps=None).num_frames <= TIGHT.max_frames


def test_time_is_bounded() -> None:
    limits = DecoderLimits(max_pixels=1 << 20, max_frames=1 << 20, timeout_seconds=0.2)
    with pytest.raises(InvalidRequestError, match=r"longer than 0\.2 s"):
        decoded(many_frames_gif(100_000), limits, fps=None)
