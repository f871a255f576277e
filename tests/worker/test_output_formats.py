"""Videos of each output format, made by a real worker."""

import pytest

from jobs import redis_keys
from jobs.storage.artifact_store import file_name
from jobs.videos.record import RESULT_KINDS, ArtifactKind, OutputFormat, VideoRecord
from tests.worker.conftest import Bench, wait_for


def read(bench: Bench, record: VideoRecord, kind: ArtifactKind) -> bytes:
    with bench.context.artifacts.open(record.id, kind) as file:
        return file.read()


@pytest.mark.parametrize("output_format", list(RESULT_KINDS))
def test_a_worker_stores_the_file_of_the_format_and_says_what_made_it(
    bench: Bench, output_format: OutputFormat
) -> None:
    records = [bench.queue(output_format=output_format) for _ in range(2)]
    bench.run_until_empty(deterministic=True)
    kind = RESULT_KINDS[output_format]
    done = [bench.context.store.get(record.id) for record in records]
    assert [sorted(record.artifacts) for record in done] == [sorted([kind, "thumbnail", "spritesheet"])] * 2
    contents = [read(bench, record, kind) for record in done]
    assert contents[0] == contents[1], "the same request gives the same bytes"
    assert bench.models["tiny"].fingerprint.encode() in contents[0]
    folder = bench.context.artifacts.path(done[0].id).parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(map(file_name, done[0].artifacts))


def test_an_interrupted_video_has_the_same_bytes_as_an_uninterrupted_one(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    steps = 400
    interrupted = bench.queue(num_inference_steps=steps, output_format="png")
    with bench.working("w1", resume_seconds=0.001, deterministic=True) as worker:
        wait_for(lambda: bench.redis.exists(redis_keys.snapshot(interrupted.id)))
        worker.request_stop(2)
    plain = bench.queue(num_inference_steps=steps, output_format="png")
    bench.run_until_empty(name="w2", deterministic=True)
    contents = [read(bench, record, "frames") for record in (interrupted, plain)]
    assert contents[0] == contents[1]
    assert "resumed at step" in caplog.text
