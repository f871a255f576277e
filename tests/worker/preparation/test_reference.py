"""Videos that start from a reference, through a whole worker: known frames, edits, extensions and their failures."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.videos.record import Reference, VideoRecord
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import PIXELS
from tests.worker.conftest import Bench, make_request, wait_for
from worker.engine.engine import Engine
from worker.generate import encode_reference, make_video
from worker.loading.model_cache import ModelCache
from worker.output.reference_blend import blend_reference

Frames = NDArray[np.uint8]


def make_frames(count: int) -> Frames:
    """A gradient that moves."""
    ramp = np.arange(PIXELS, dtype=np.uint8) * 8
    return np.stack([np.stack([np.roll(ramp, index)] * PIXELS) for index in range(count)])[..., None].repeat(3, -1)


def queue(bench: Bench, frames: Frames, folder: Path, use: str, **changes: Any) -> VideoRecord:
    """Store the reference as the server does, and queue the video."""
    about = {name: changes.pop(name) for name in ("strength", "overlap_frames") if name in changes}
    record = bench.queue(reference={"use": use, "num_frames": len(frames), **about}, **changes)
    path = folder / "reference"
    path.write_bytes(frames.tobytes())
    bench.context.artifacts.write(record.id, "reference", path)
    return record


def frames_of(bench: Bench, record: VideoRecord) -> Frames:
    after = bench.context.store.get(record.id)
    assert after.status == "completed", after.error
    return decode_mp4(bench.context.artifacts.path(record.id)).frames


def test_a_worker_makes_the_file_that_the_plain_loop_makes(bench: Bench, models: ModelCache, tmp_path: Path) -> None:
    image, video = make_frames(1), make_frames(4)
    queued = {
        "first": queue(bench, image, tmp_path, "first"),
        "all": queue(bench, image, tmp_path, "all"),
        "edit": queue(bench, video, tmp_path, "edit", strength=0.5),
        "extend": queue(bench, video, tmp_path, "extend", overlap_frames=2, num_frames=6),
    }
    bench.run_until_empty(max_batch_rows=1)
    for name, record in queued.items():
        reference = image if name in ("first", "all") else video
        make_video(record.request, models["tiny"], tmp_path / name, reference=reference)
        assert (frames_of(bench, record) == decode_mp4(tmp_path / name).frames).all(), name


def test_an_extension_is_the_source_and_its_continuation(bench: Bench, tmp_path: Path) -> None:
    source = make_frames(5)
    record = queue(bench, source, tmp_path, "extend", overlap_frames=2, num_frames=7)
    bench.run_until_empty()
    made = frames_of(bench, record)
    assert len(made) == 7
    assert np.abs(made[:3].astype(int) - source[:3]).mean() < 6  # H.264 loses some


def test_the_overlap_fades_from_the_source_to_the_continuation() -> None:
    request = make_request(num_frames=6, reference=Reference(use="extend", num_frames=4, overlap_frames=3))
    source, generated = np.full((4, 2, 2, 3), 100, np.uint8), np.full((5, 2, 2, 3), 200, np.uint8)
    joined = blend_reference(request, source, generated)
    assert joined[:, 0, 0, 0].tolist() == [100, 125, 150, 175, 200, 200]


def test_the_frames_of_a_reference_fade_into_the_video() -> None:
    generated = np.full((5, 2, 2, 3), 200, np.uint8)
    expected = {"first": [150, 200, 200, 200, 200], "last": [200, 200, 200, 200, 150], "all": [150, 200, 200, 200, 150]}
    for use, levels in expected.items():
        request = make_request(num_frames=5, reference={"use": use, "num_frames": 1})
        video = blend_reference(request, np.full((1, 2, 2, 3), 100, np.uint8), generated)
        assert video[:, 0, 0, 0].tolist() == levels
    request = make_request(num_frames=5, reference={"use": "first", "num_frames": 3})
    video = blend_reference(request, np.full((3, 2, 2, 3), 100, np.uint8), generated)
    assert video[:, 0, 0, 0].tolist() == [125, 150, 175, 200, 200]
    request = make_request(num_frames=5, reference={"use": "edit", "num_frames": 5, "strength": 0.5})
    assert blend_reference(request, np.full((5, 2, 2, 3), 100, np.uint8), generated) is generated


def test_known_frames_stand_where_the_request_says(models: ModelCache) -> None:
    vae = models["tiny"].checkpoint.vae
    known_places = {"first": [0], "last": [3], "all": [0, 3]}
    for use, places in known_places.items():
        request = make_request(reference={"use": use, "num_frames": 1})
        known, source = encode_reference(request, make_frames(1), vae)
        assert known is not None
        assert source is None
        assert known.is_known[0].nonzero().flatten().tolist() == places


def test_a_request_without_its_frames_is_refused(models: ModelCache) -> None:
    request = make_request(reference={"use": "first", "num_frames": 4})
    vae = models["tiny"].checkpoint.vae
    with pytest.raises(ValueError, match="they are needed"):
        encode_reference(request, None, vae)
    with pytest.raises(ValueError, match="takes fewer"):
        encode_reference(request, make_frames(4), vae)


def test_a_broken_reference_fails_its_video_alone(bench: Bench, tmp_path: Path) -> None:
    good = queue(bench, make_frames(1), tmp_path, "first")
    missing = bench.queue(reference={"use": "first", "num_frames": 1})
    damaged = queue(bench, make_frames(1), tmp_path, "first")
    bench.context.artifacts.path(damaged.id, "reference").write_bytes(b"short")
    bench.run_until_empty()
    assert bench.context.store.get(good.id).status == "completed"
    for record in (missing, damaged):
        after = bench.context.store.get(record.id)
        assert after.error is not None
        assert after.error.code == "artifact_store"


def test_an_extension_resumes_from_a_snapshot(
    bench: Bench, models: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second worker does the remaining steps only, and makes the file of an undisturbed run."""
    steps: list[int] = []

    def step(engine: Engine, original: Any = Engine.step) -> Any:
        time.sleep(0.02 if engine.request_ids else 0)
        steps.extend([1] * bool(engine.request_ids))
        return original(engine)

    monkeypatch.setattr(Engine, "step", step)
    source = make_frames(4)
    options = {"overlap_frames": 2, "num_frames": 6, "num_inference_steps": 60}
    record = queue(bench, source, tmp_path, "extend", **options)
    with bench.working("w1", resume_seconds=0.05):
        wait_for(lambda: bench.context.store.snapshot(record.id))
    assert bench.context.store.get(record.id).status == "queued"
    steps.clear()
    bench.run_until_empty()
    assert len(steps) < 60
    make_video(record.request, models["tiny"], tmp_path / "plain", reference=source)
    assert (frames_of(bench, record) == decode_mp4(tmp_path / "plain").frames).all()
