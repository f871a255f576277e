"""The finisher thread: real decoding, real MP4s."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

from jobs.videos.record import VideoRecord, VideoRequest
from models.vae import VideoDecoder
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS
from tests.worker.conftest import RunningFinisher, finishing, wait_for
from tests.worker.engines import latents_of, run_until_done
from worker.engine.engine import Engine, EngineSettings
from worker.engine.scheduler import Scheduler
from worker.generate import make_video, to_generation
from worker.loading.model_cache import LoadedModel, ModelCache
from worker.messages import Artifacts, CloseFinisher, DropJob, JobFailed, JobFinished, StopRetries


class Uploads:
    """An artifact store that remembers the shapes of the videos. It has no room for `undeliverable`."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __call__(self, record: VideoRecord, folder: Path, should_stop: Callable[[], bool]) -> Artifacts:
        if record.id == "undeliverable":
            raise OSError("disk full")
        self.shapes[record.id] = decode_mp4(folder / "video.mp4").frames.shape
        return {}


@pytest.fixture
def uploads() -> Uploads:
    return Uploads()


@pytest.fixture
def finisher(uploads: Uploads) -> Iterator[RunningFinisher]:
    with finishing(uploads, interval_seconds=0.01) as finisher:
        yield finisher


@pytest.fixture
def tiny(models: ModelCache) -> LoadedModel:
    return models["tiny"]


class Gate:
    """Decoding waits until `opened` is set."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    decode = VideoDecoder.decode

    def waiting(self: VideoDecoder, latents: torch.Tensor) -> torch.Tensor:
        gate.reached.set()
        assert gate.opened.wait(60)
        return decode(self, latents)

    monkeypatch.setattr(VideoDecoder, "decode", waiting)
    yield gate
    gate.opened.set()


def make_latents(fill: float | None = None) -> torch.Tensor:
    shape = (1, NUM_FRAMES, 2, PIXELS // 2, PIXELS // 2)
    return torch.randn(shape) if fill is None else torch.full(shape, fill)


def test_a_video_is_made_and_uploaded(finisher: RunningFinisher, uploads: Uploads, tiny: LoadedModel) -> None:
    finisher.submit("a", tiny, make_latents())
    (finished,) = finisher.wait_for_results(1)
    assert isinstance(finished, JobFinished)
    assert finished.request_id == "a"
    assert uploads.shapes == {"a": (NUM_FRAMES, PIXELS, PIXELS, 3)}
    assert all(seconds is not None and seconds > 0 for _, seconds in finished.timings)
    assert finished.timings.denoise_s == 1.0
    # The process has PyTorch loaded.
    assert 2**26 < (finished.peak_memory_bytes or 0) < 2**40


def test_a_job_that_fails_fails_alone(finisher: RunningFinisher, tiny: LoadedModel) -> None:
    finisher.submit("divergent", tiny, make_latents(fill=float("nan")))
    finisher.submit("unplayable", tiny, make_latents(), fps=0)
    finisher.submit("undeliverable", tiny, make_latents())
    finisher.submit("sound", tiny, make_latents())
    *failed, sound = finisher.wait_for_results(4)
    assert isinstance(sound, JobFinished)
    errors = {result.request_id: str(result.error) for result in failed if isinstance(result, JobFailed)}
    assert errors.keys() == {"divergent", "unplayable", "undeliverable"}
    assert "NaN" in errors["divergent"]
    assert "fps" in errors["unplayable"]
    assert errors["undeliverable"] == "disk full"


def test_a_waiting_job_can_be_dropped(finisher: RunningFinisher, tiny: LoadedModel, gate: Gate) -> None:
    for request_id in ("a", "b", "c"):
        finisher.submit(request_id, tiny, make_latents())
    assert gate.reached.wait(60)
    for request_id in ("a", "b", "unknown"):
        finisher.inbox.post(DropJob(request_id))
    gate.opened.set()
    assert [result.request_id for result in finisher.wait_for_results(2)] == ["a", "c"]


def test_closing_waits_for_the_current_job_and_forgets_the_others(
    uploads: Uploads, tiny: LoadedModel, gate: Gate
) -> None:
    with finishing(uploads) as finisher:
        finisher.submit("a", tiny, make_latents())
        finisher.submit("b", tiny, make_latents())
        assert gate.reached.wait(60)
        finisher.inbox.post(CloseFinisher())
        gate.opened.set()
    assert [result.request_id for result in finisher.results.receive()] == ["a"]


def test_decoding_is_retried_when_memory_was_short(
    finisher: RunningFinisher, tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = VideoDecoder.decode
    refusals = [torch.OutOfMemoryError("no"), torch.OutOfMemoryError("no")]

    def short_of_memory(self: VideoDecoder, latents: torch.Tensor) -> torch.Tensor:
        if refusals:
            raise refusals.pop()
        return decode(self, latents)

    monkeypatch.setattr(VideoDecoder, "decode", short_of_memory)
    finisher.submit("a", tiny, make_latents())
    (finished,) = finisher.wait_for_results(1)
    assert isinstance(finished, JobFinished)
    assert not refusals


@pytest.mark.parametrize("message", [StopRetries(), DropJob("a")])
def test_a_stop_ends_the_retries_at_once(
    uploads: Uploads,
    tiny: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    message: StopRetries | DropJob,
) -> None:
    def refuse(self: VideoDecoder, latents: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(VideoDecoder, "decode", refuse)
    with finishing(uploads, memory_seconds=3600, interval_seconds=3600) as finisher:
        finisher.submit("a", tiny, make_latents())
        wait_for(lambda: f"decoding of {NUM_FRAMES} frames ran out of memory, retrying in" in caplog.text)
        finisher.inbox.post(message)
        (failed,) = finisher.wait_for_results(1)
    assert isinstance(failed, JobFailed)
    assert isinstance(failed.error, torch.OutOfMemoryError)


def test_encoding_is_retried_when_the_encoder_was_killed(
    finisher: RunningFinisher, tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg, flag = tmp_path / "ffmpeg", tmp_path / "killed"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    ffmpeg.write_text(f'#!/bin/sh\n[ -e {flag} ] || {{ : > {flag}; kill -9 $$; }}\nexec {real} "$@"\n')
    ffmpeg.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(ffmpeg))
    finisher.submit("a", tiny, make_latents())
    (result,) = finisher.wait_for_results(1)
    assert flag.exists()
    assert isinstance(result, JobFinished), result


def test_the_file_equals_that_of_make_video(
    models: ModelCache, tmp_path: Path, request_of: Callable[..., VideoRequest]
) -> None:
    requests = {str(seed): request_of(seed=seed, sampler="ddpm") for seed in (1, 2)}
    files: dict[str, bytes] = {}

    def upload(record: VideoRecord, folder: Path, should_stop: Callable[[], bool]) -> Artifacts:
        files[record.id] = (folder / "video.mp4").read_bytes()
        return {}

    engine = Engine(models, Scheduler(), EngineSettings(deterministic=True))
    for name, request in requests.items():
        engine.admit(name, "tiny", to_generation(request, models["tiny"]))
    with finishing(upload) as finisher:
        for name, latents in latents_of(run_until_done(engine)).items():
            finisher.submit(name, models["tiny"], latents, request=requests[name])
        finisher.wait_for_results(2)
    for name, request in requests.items():
        make_video(request, models["tiny"], tmp_path / name)
        assert files[name] == (tmp_path / name).read_bytes()
