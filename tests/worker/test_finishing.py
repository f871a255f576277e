"""A thread that finishes videos beside the engine: real decoding, real MP4s."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

import worker.finishing
from jobs.records import VideoRequest
from models.vae import VideoDecoder
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS
from tests.worker.conftest import results_of, wait_for
from tests.worker.engines import latents_of, run_out
from worker.engine import Engine, EngineSettings
from worker.finishing import Finished, Finisher, FinishFailed
from worker.generate import make_video, to_generation
from worker.policy import Policy
from worker.resident import ResidentModel, ResidentModels


def deliver(request_id: str, folder: Path) -> tuple[int, ...]:
    if request_id == "undeliverable":
        raise OSError("disk full")
    return decode_mp4(folder / "video.mp4").frames.shape


@pytest.fixture
def finisher() -> Iterator[Finisher[tuple[int, ...]]]:
    finisher = Finisher(deliver, capacity=2)
    yield finisher
    finisher.close()


@pytest.fixture
def tiny(models: ResidentModels) -> ResidentModel:
    return models["tiny"]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Decoding waits until it is set."""
    gate = threading.Event()
    decode = VideoDecoder.decode

    def waiting(self: VideoDecoder, latents: torch.Tensor) -> torch.Tensor:
        assert gate.wait(60)
        return decode(self, latents)

    monkeypatch.setattr(VideoDecoder, "decode", waiting)
    yield gate
    gate.set()


def make_latents(fill: float | None = None) -> torch.Tensor:
    shape = (1, NUM_FRAMES, 2, PIXELS // 2, PIXELS // 2)
    return torch.randn(shape) if fill is None else torch.full(shape, fill)


def test_a_video_is_made_and_delivered(finisher: Finisher[tuple[int, ...]], tiny: ResidentModel) -> None:
    finisher.submit("a", tiny, make_latents(), 8)
    (finished,) = results_of(finisher, 1)
    assert isinstance(finished, Finished)
    assert (finished.request_id, finished.delivery) == ("a", (NUM_FRAMES, PIXELS, PIXELS, 3))
    assert finished.timings.decode_s is not None
    assert finished.timings.encode_s is not None
    assert finisher.finished() == []
    assert len(finisher) == 0


def test_the_work_is_beside_and_what_piles_up_is_seen(
    finisher: Finisher[tuple[int, ...]], tiny: ResidentModel, gate: threading.Event
) -> None:
    finisher.submit("a", tiny, make_latents(), 8)
    assert not finisher.full
    finisher.submit("b", tiny, make_latents(), 8)
    assert finisher.full
    assert finisher.finished() == []
    gate.set()
    assert [result.request_id for result in results_of(finisher, 2)] == ["a", "b"]
    assert not finisher.full


def test_what_fails_fails_alone(finisher: Finisher[tuple[int, ...]], tiny: ResidentModel) -> None:
    finisher.submit("divergent", tiny, make_latents(fill=float("nan")), 8)
    finisher.submit("unplayable", tiny, make_latents(), 0)
    finisher.submit("undeliverable", tiny, make_latents(), 8)
    finisher.submit("sound", tiny, make_latents(), 8)
    *failed, sound = results_of(finisher, 4)
    assert isinstance(sound, Finished)
    errors = {result.request_id: str(result.error) for result in failed if isinstance(result, FinishFailed)}
    assert errors.keys() == {"divergent", "unplayable", "undeliverable"}
    assert "NaN" in errors["divergent"]
    assert "fps" in errors["unplayable"]
    assert errors["undeliverable"] == "disk full"


def test_only_what_waits_can_be_dropped(
    finisher: Finisher[tuple[int, ...]], tiny: ResidentModel, gate: threading.Event
) -> None:
    finisher.submit("a", tiny, make_latents(), 8)
    finisher.submit("b", tiny, make_latents(), 8)
    wait_for(lambda: "a" not in finisher._waiting)
    assert not finisher.drop("a")
    assert finisher.drop("b")
    assert not finisher.drop("b")
    assert len(finisher) == 1
    finisher.submit("c", tiny, make_latents(), 8)
    gate.set()
    assert [result.request_id for result in results_of(finisher, 2)] == ["a", "c"]


def test_closing_waits_for_what_is_at_work_and_forgets_the_rest(tiny: ResidentModel, gate: threading.Event) -> None:
    finisher = Finisher(deliver)
    finisher.submit("a", tiny, make_latents(), 8)
    finisher.submit("b", tiny, make_latents(), 8)
    wait_for(lambda: "a" not in finisher._waiting)
    threading.Timer(0.05, gate.set).start()
    finisher.close()
    assert [result.request_id for result in finisher.finished()] == ["a"]
    assert len(finisher) == 0


def test_a_moment_without_memory_costs_no_video(
    finisher: Finisher[tuple[int, ...]], tiny: ResidentModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.finishing, "_PAUSE_SECONDS", 0.0)
    decode = VideoDecoder.decode
    refusals = [torch.OutOfMemoryError("no"), torch.OutOfMemoryError("no")]

    def short_of_memory(self: VideoDecoder, latents: torch.Tensor) -> torch.Tensor:
        if refusals:
            raise refusals.pop()
        return decode(self, latents)

    monkeypatch.setattr(VideoDecoder, "decode", short_of_memory)
    finisher.submit("a", tiny, make_latents(), 8)
    (finished,) = results_of(finisher, 1)
    assert isinstance(finished, Finished)
    assert not refusals


def test_an_encoder_that_is_killed_once_costs_no_video(
    finisher: Finisher[tuple[int, ...]], tiny: ResidentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg, flag = tmp_path / "ffmpeg", tmp_path / "killed"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    ffmpeg.write_text(f'#!/bin/sh\n[ -e {flag} ] || {{ : > {flag}; kill -9 $$; }}\nexec {real} "$@"\n')
    ffmpeg.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(ffmpeg))
    finisher.submit("a", tiny, make_latents(), 8)
    (result,) = results_of(finisher, 1)
    assert flag.exists()
    assert isinstance(result, Finished), result


def test_the_file_is_the_one_that_is_made_without_a_batch(
    models: ResidentModels, tmp_path: Path, request_of: Callable[..., VideoRequest]
) -> None:
    requests = {str(seed): request_of(seed=seed, sampler="ddpm") for seed in (1, 2)}
    files: dict[str, bytes] = {}
    finisher = Finisher(lambda name, folder: files.update({name: (folder / "video.mp4").read_bytes()}))
    engine = Engine(models, Policy(), EngineSettings(deterministic=True))
    for name, wanted in requests.items():
        engine.admit(name, "tiny", to_generation(wanted, models["tiny"]))
    for name, latents in latents_of(run_out(engine)).items():
        finisher.submit(name, models["tiny"], latents, requests[name].fps)
    wait_for(lambda: len(files) == 2)
    finisher.close()
    for name, wanted in requests.items():
        make_video(wanted, models["tiny"], tmp_path / name)
        assert files[name] == (tmp_path / name).read_bytes()
