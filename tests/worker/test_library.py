"""The Python interface: load a checkpoint, generate frames, save them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import InvalidCardError
from jobs.videos.record import VideoRequest
from models.generate import denoise
from tests.models.adapters.adapter_folders import make_adapter_folder
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import tiny_config
from worker.errors import StartupError
from worker.generate import to_generation
from worker.library import Pipeline, load


@pytest.fixture(scope="module")
def pipeline(checkpoints: Path) -> Pipeline:
    return load(checkpoints / "tiny", device="cpu", adapters=checkpoints.parent / "adapters")


def test_generate_returns_the_frames_of_the_plain_denoising_loop(
    pipeline: Pipeline, request_of: Callable[..., VideoRequest]
) -> None:
    frames = pipeline.generate(class_label=1, seed=7)
    checkpoint = pipeline.model.checkpoint
    generation = to_generation(request_of(), pipeline.model)
    expected = checkpoint.vae.decode(denoise(checkpoint.transformer, checkpoint.schedule, generation))
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, expected.numpy())


def test_generate_accepts_a_class_name_and_reports_each_step(pipeline: Pipeline) -> None:
    steps: list[tuple[int, int]] = []
    named = pipeline.generate(
        class_label="right", seed=7, num_inference_steps=2, on_step=lambda *done: steps.append(done)
    )
    assert np.array_equal(named, pipeline.generate(class_label=1, seed=7, num_inference_steps=2))
    assert steps == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    "option", [{"num_inference_steps": 3}, {"guidance_scale": 1.0}, {"sampler": "ddpm"}, {"num_frames": 2}, {"seed": 8}]
)
def test_every_option_changes_the_frames(pipeline: Pipeline, option: dict[str, object]) -> None:
    options: dict[str, object] = {"class_label": 1, "seed": 7}
    assert not np.array_equal(pipeline.generate(**options), pipeline.generate(**options | option))  # type: ignore[arg-type]


def test_generate_without_a_seed_draws_a_new_one_each_time(pipeline: Pipeline) -> None:
    first, second = (pipeline.generate(class_label=1, num_inference_steps=1) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"0\.\.2"),
        ({"class_label": "down"}, "got the class 'down': allowed are left, right, up"),
        ({"class_label": 3}, r"0\.\.2"),
        ({"class_label": 1, "sampler": "magic"}, "magic"),
        ({"class_label": 1, "num_frames": 0}, "num_frames"),
    ],
)
def test_an_unsupported_value_is_a_value_error(pipeline: Pipeline, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline.generate(**options)  # type: ignore[arg-type]


def test_save_writes_an_mp4_at_the_cards_frame_rate(pipeline: Pipeline, tmp_path: Path) -> None:
    frames = pipeline.generate(class_label=1, seed=7)
    pipeline.save(frames, tmp_path / "out.mp4")
    decoded = decode_mp4(tmp_path / "out.mp4")
    assert (decoded.frames.shape, decoded.fps) == (frames.shape, pipeline.card.fps)


def test_load_names_the_reason_when_the_folder_is_no_checkpoint(checkpoints: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidCardError, match="is it a checkpoint folder"):
        load(tmp_path)
    with pytest.raises(StartupError, match="device 'cuda:99' cannot be used"):
        load(checkpoints / "tiny", device="cuda:99")


def test_a_video_can_go_on_from_the_frames_of_another(pipeline: Pipeline) -> None:
    """The VAE of the tests has random weights, so only the latents show that the known frames are kept."""
    start = pipeline.generate(class_label=1, seed=7)
    steps: list[tuple[int, int]] = []
    free = pipeline.generate(class_label=1, seed=8)
    held = pipeline.generate(class_label=1, seed=8, first_frames=start[-2:])
    edited = pipeline.generate(
        class_label=1, seed=8, source=start, strength=0.5, on_step=lambda *done: steps.append(done)
    )
    assert held.shape == edited.shape == free.shape
    assert not np.array_equal(held, free)
    assert not np.array_equal(edited, free)
    assert steps == [(1, 2), (2, 2)]  # of 4
    with pytest.raises(ValueError, match="takes fewer"):
        pipeline.generate(class_label=1, first_frames=start)


def test_a_longer_video_than_the_trained_ones_is_made_in_windows(pipeline: Pipeline) -> None:
    trained = pipeline.model.checkpoint.config.num_frames
    assert len(pipeline.generate(class_label=1, seed=7, num_frames=2 * trained)) == 2 * trained


def test_many_videos_are_the_same_as_each_alone(pipeline: Pipeline) -> None:
    start = pipeline.generate(class_label=1, seed=7)
    requests: list[dict[str, object]] = [
        {"class_label": "right", "seed": 1},
        {"class_label": 2, "seed": 2, "num_inference_steps": 2, "sampler": "ddpm"},
        {"class_label": 0, "seed": 3, "guidance_scale": 1.0, "num_frames": 2},
        {"class_label": 0, "seed": 4, "source": start, "strength": 0.5},
    ]
    alone = [pipeline.generate(**request) for request in requests]  # type: ignore[arg-type]
    exact = {video.number: video.frames for video in pipeline.generate_many(requests, deterministic=True)}
    batched = {video.number: video.frames for video in pipeline.generate_many(requests)}
    assert exact.keys() == batched.keys() == {0, 1, 2, 3}
    for number, frames in enumerate(alone):
        assert np.array_equal(exact[number], frames)
        # A product of more rows is rounded differently, which may move a colour to its neighbour.
        assert batched[number].dtype == np.uint8
        assert np.abs(batched[number].astype(int) - frames.astype(int)).max() <= 1


def test_of_many_videos_one_that_fails_fails_alone_and_shorter_ones_come_first(pipeline: Pipeline) -> None:
    requests = [
        {"class_label": 1, "num_inference_steps": 50},
        {"class_label": "down"},
        {"class_label": 1, "colour": "red"},
        {"class_label": 1, "num_inference_steps": 2},
    ]
    videos = list(pipeline.generate_many(iter(requests)))
    errors = {video.number: str(video.error) for video in videos if video.error}
    assert sorted(errors) == [1, 2]
    assert "got the class 'down'" in errors[1]
    assert "unknown arguments: colour; allowed are prompt," in errors[2]
    assert [video.number for video in videos if video.frames is not None] == [3, 0]


def test_many_videos_are_read_as_slots_are_free(pipeline: Pipeline) -> None:
    read: list[int] = []

    def requests() -> Iterator[dict[str, object]]:
        for number in range(40):
            read.append(number)
            yield {"class_label": 1, "num_inference_steps": 1, "seed": number}

    videos = pipeline.generate_many(requests())
    next(videos)
    assert len(read) < 40
    assert len(list(videos)) == 39


@pytest.mark.parametrize(("suffix", "magic"), [(".webm", b"\x1a\x45\xdf\xa3"), (".gif", b"GIF89a"), (".zip", b"PK")])
def test_the_suffix_chooses_the_format(pipeline: Pipeline, tmp_path: Path, suffix: str, magic: bytes) -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    pipeline.save(frames, tmp_path / f"out{suffix}")
    assert (tmp_path / f"out{suffix}").read_bytes().startswith(magic)


def test_a_png_holds_one_frame(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.save(np.zeros((1, 16, 16, 3), np.uint8), tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="got 4 frames for a"):
        pipeline.save(np.zeros((4, 16, 16, 3), np.uint8), tmp_path / "out.png")


def test_an_adapter_changes_its_video_alone(pipeline: Pipeline, checkpoints: Path) -> None:
    make_adapter_folder(checkpoints.parent / "adapters" / "first", tiny_config())
    request = {"class_label": 1, "seed": 7}
    named = request | {"adapters": {"first": 1.0}}
    plain, changed, again = pipeline.generate_many([request, named, request], deterministic=True)
    assert np.array_equal(plain.frames, pipeline.generate(class_label=1, seed=7))  # type: ignore[arg-type]
    assert np.array_equal(plain.frames, again.frames)  # type: ignore[arg-type]
    assert np.array_equal(changed.frames, pipeline.generate(class_label=1, seed=7, adapters={"first": 1.0}))  # type: ignore[arg-type]
    assert not np.array_equal(changed.frames, plain.frames)  # type: ignore[arg-type]


def test_an_adapter_that_is_not_there_fails_its_video_alone(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match=r"an adapter cannot be used: .*gone"):
        pipeline.generate(class_label=1, adapters={"gone": 1.0})
    failed, made = pipeline.generate_many([{"class_label": 1, "adapters": {"gone": 1.0}}, {"class_label": 1}])
    assert isinstance(failed.error, ValueError)
    assert made.error is None
