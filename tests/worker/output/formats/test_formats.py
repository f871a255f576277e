"""Every format is decoded again, by ffmpeg or Pillow, and its metadata are read from the file."""

import io
import json
import re
import subprocess
import zipfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.videos.record import ArtifactKind, OutputQuality, Reference, VideoRequest
from tests.mp4 import decode_mp4
from worker.output.formats.encoding import Encoding
from worker.output.formats.ffmpeg import EncodeError
from worker.output.formats.metadata import DIGITAL_SOURCE_TYPE, FileMetadata, describe_request
from worker.output.formats.writers import WRITERS

ANIMATIONS: list[ArtifactKind] = ["video", "webm", "gif", "webp", "frames"]
QUALITIES: list[OutputQuality] = ["low", "medium", "high", "maximum"]

# What XML, a command line and a C string could each misread.
PROMPT = 'a <red> "circle" & a = b; $HOME \\ 100 % \n ünï \u0000 \ufffe 🎈'
REQUEST = VideoRequest(
    model="tiny",
    prompt=PROMPT,
    negative_prompt="blur",
    seed=7,
    num_frames=8,
    fps=8,
    height=48,
    width=64,
    num_inference_steps=4,
    guidance_scale=2.5,
    sampler="ddim",
    metadata={"customer": "4711"},
    webhook_url="https://example.com/secret",
    reference=Reference(use="first", num_frames=1, source_video_id="video_" + 32 * "a"),
)
METADATA = describe_request(REQUEST, "0123456789abcdef", with_prompts=True)


def moving_square(num_frames: int = 8, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """(T, H, W, 3): an orange square on a gradient, 3 pixels further to the right in each frame."""
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    frames[:] = np.linspace(0, 120, width, dtype=np.uint8)[None, None, :, None]
    for index in range(num_frames):
        frames[index, 12:36, 3 * index : 3 * index + 24] = (240, 140, 30)
    return frames


def decode(path: Path, kind: ArtifactKind) -> NDArray[np.uint8]:
    """The frames of a file."""
    match kind:
        case "frames":
            with zipfile.ZipFile(path) as archive:
                return np.stack([_pixels(archive.read(name)) for name in archive.namelist()])
        case "webp" | "gif" | "image":
            return _pixels_of_all(path)
        case _:
            return decode_mp4(path).frames


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _pixels_of_all(path: Path) -> NDArray[np.uint8]:
    frames = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def tags(path: Path) -> dict[str, str]:
    """The tags of a container, as ffmpeg reads them."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", f"file:{path}", "-f", "ffmetadata", "-"]
    output = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    unescaped = re.sub(r"\\(.)", r"\1", output)
    return dict(line.split("=", 1) for line in unescaped.splitlines() if "=" in line)


def seconds(path: Path, kind: ArtifactKind) -> float:
    """The duration of an animation by its timestamps."""
    if kind in ("video", "webm"):
        video = decode_mp4(path)
        return len(video.frames) / video.fps
    total = 0.0
    with Image.open(path) as image:
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            image.load()
            total += image.info["duration"] / 1000
    return total


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_decoded_again_it_is_the_same_video(tmp_path: Path, kind: ArtifactKind) -> None:
    frames = moving_square()
    WRITERS[kind](frames, tmp_path / "out", Encoding(8, metadata=METADATA))
    decoded = decode(tmp_path / "out", kind)
    assert decoded.shape == frames.shape
    difference = np.abs(decoded.astype(int) - frames.astype(int))
    assert difference.mean() < 3
    if kind == "frames":
        assert difference.max() == 0, "PNG is lossless"
    else:
        assert seconds(tmp_path / "out", kind) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", ANIMATIONS)
def test_interpolation_multiplies_the_frames_and_keeps_the_seconds(tmp_path: Path, kind: ArtifactKind) -> None:
    frames = moving_square()
    WRITERS[kind](frames, tmp_path / "out", Encoding(8, 4))
    decoded = decode(tmp_path / "out", kind)
    # WebP joins frames that are equal: minterpolate repeats the last one.
    assert 29 <= len(decoded) <= 32 if kind == "webp" else len(decoded) == 32
    assert np.abs(decoded[: 4 * len(frames) : 4].astype(int) - frames).mean() < 4
    if kind == "frames":
        assert (decoded[::4] == frames).all(), "the model's own frames are lossless"
    else:
        assert seconds(tmp_path / "out", kind) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kind", [*ANIMATIONS, "image"])
def test_same_frames_give_the_same_bytes(tmp_path: Path, kind: ArtifactKind) -> None:
    frames = moving_square(1 if kind == "image" else 8)
    for name in ("a", "b"):
        WRITERS[kind](frames, tmp_path / name, Encoding(8, metadata=METADATA))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", ["video", "webm", "gif", "webp"])
def test_a_higher_quality_is_larger_and_closer_to_the_frames(tmp_path: Path, kind: ArtifactKind) -> None:
    rng = np.random.default_rng(0)
    frames = (moving_square() // 2 + rng.integers(0, 40, (8, 48, 64, 3))).astype(np.uint8)
    sizes, errors = [], []
    for quality in QUALITIES:
        WRITERS[kind](frames, tmp_path / "out", Encoding(8, quality=quality))
        sizes.append((tmp_path / "out").stat().st_size)
        errors.append(np.abs(decode(tmp_path / "out", kind).astype(int) - frames).mean())
    assert sizes == sorted(set(sizes))
    assert errors[-1] < errors[0]
    if kind == "webp":
        assert errors[-1] == 0, "maximum is lossless"


def test_the_mp4_without_metadata_is_that_of_the_default_settings(tmp_path: Path) -> None:
    WRITERS["video"](moving_square(), tmp_path / "plain", Encoding(8))
    WRITERS["video"](moving_square(), tmp_path / "tagged", Encoding(8, metadata=METADATA))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", "64x48", "-r", "8", "-i", "pipe:0", "-vf"]
    command += ["scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-frames:v", "8", "-colorspace", "bt709"]
    command += ["-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv", "-c:v", "libx264"]
    command += ["-preset", "medium", "-crf", "16", "-threads", "2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command += ["-fflags", "+bitexact", "-f", "mp4", "-y", str(tmp_path / "expected")]
    subprocess.run(command, input=moving_square().tobytes(), check=True)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "expected").read_bytes()
    assert (decode(tmp_path / "plain", "video") == decode(tmp_path / "tagged", "video")).all()


def description(path: Path, kind: ArtifactKind) -> str:
    """The JSON in the metadata of a file, and a check of the digital source type beside it."""
    match kind:
        case "video" | "webm":
            found = {name.lower(): value for name, value in tags(path).items()}
            assert found["digital_source_type"] == DIGITAL_SOURCE_TYPE
            return found["comment"]
        case "gif":
            with Image.open(path) as image:
                return str(image.info["comment"].decode())
        case "webp":
            with Image.open(path) as image:
                return _from_xmp(image.info["xmp"])
        case "image":
            return _from_png(path.read_bytes())
        case _:
            with zipfile.ZipFile(path) as archive:
                [text] = {_from_png(archive.read(name)) for name in archive.namelist()}
                return text


def _from_png(png: bytes) -> str:
    texts = Image.open(io.BytesIO(png)).text  # type: ignore[attr-defined]
    assert _from_xmp(texts["XML:com.adobe.xmp"].encode()) == texts["Comment"]
    return str(texts["Comment"])


def _from_xmp(packet: bytes) -> str:
    from xml.etree import ElementTree

    root = ElementTree.fromstring(packet.decode().partition("?>")[2].rpartition("<?")[0])
    [described] = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    source_type = described.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source_type == DIGITAL_SOURCE_TYPE
    [text] = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")
    return text.text or ""


@pytest.mark.parametrize("kind", [*ANIMATIONS, "image"])
def test_a_file_states_what_generated_it(tmp_path: Path, kind: ArtifactKind) -> None:
    WRITERS[kind](moving_square(1 if kind == "image" else 8), tmp_path / "out", Encoding(8, metadata=METADATA))
    found = json.loads(description(tmp_path / "out", kind))
    assert found["digital_source_type"] == DIGITAL_SOURCE_TYPE
    assert (found["model"], found["checkpoint"], found["seed"]) == ("tiny", "0123456789abcdef", 7)
    assert found["settings"]["prompt"] == PROMPT
    assert found["settings"]["num_inference_steps"] == 4
    assert found["software"].startswith("FrameDiT server")


def test_an_mp4_has_a_box_with_xmp_at_its_end(tmp_path: Path) -> None:
    WRITERS["video"](moving_square(), tmp_path / "out", Encoding(8, metadata=METADATA))
    content = (tmp_path / "out").read_bytes()
    start = content.index(b"uuid\xbe\x7a\xcf\xcb") - 4
    assert int.from_bytes(content[start : start + 4], "big") == len(content) - start
    assert _from_xmp(content[start + 24 :]) == METADATA.text


@pytest.mark.parametrize("kind", [*ANIMATIONS, "image"])
def test_a_file_without_metadata_says_nothing(tmp_path: Path, kind: ArtifactKind) -> None:
    WRITERS[kind](moving_square(1 if kind == "image" else 8), tmp_path / "out", Encoding(8))
    content = (tmp_path / "out").read_bytes()
    assert b"FrameDiT" not in content
    assert b"trainedAlgorithmicMedia" not in content


@pytest.mark.parametrize("with_prompts", [True, False])
def test_the_metadata_hold_prompts_only_where_the_operator_wants_them(with_prompts: bool) -> None:
    metadata: FileMetadata = describe_request(REQUEST, "0123", with_prompts)
    assert ("balloon" in metadata.text or "circle" in metadata.text) == with_prompts
    assert ("blur" in metadata.text) == with_prompts
    for private in ("4711", "example.com", "video_aaaa"):
        assert private not in metadata.text
    assert metadata.content["settings"]["reference"] == {"use": "first", "num_frames": 1, "overlap_frames": 0}


@pytest.mark.parametrize("kind", ["video", "webm", "gif"])
def test_a_failing_encoder_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: ArtifactKind) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho half > {tmp_path}/out; cat > /dev/null; echo broken >&2; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(EncodeError, match="status 3: broken"):
        WRITERS[kind](moving_square(), tmp_path / "out", Encoding(8))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["gif", "webp", "frames"])
def test_formats_without_halved_colour_planes_take_odd_sizes(tmp_path: Path, kind: ArtifactKind) -> None:
    frames = moving_square(4, 47, 63)
    WRITERS[kind](frames, tmp_path / "out", Encoding(8))
    assert decode(tmp_path / "out", kind).shape == frames.shape


def test_a_webp_with_repeated_frames_keeps_its_seconds(tmp_path: Path) -> None:
    WRITERS["webp"](np.repeat(moving_square(2), 4, axis=0), tmp_path / "out", Encoding(8))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "webp_anim", "-i", str(tmp_path / "out")]
    command += ["-vf", "fps=8", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(output) == 8 * 48 * 64 * 3
