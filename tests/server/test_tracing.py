"""One trace from the request to the file, received as a collector would, and nothing at all without an endpoint."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
import torch
from redis import Redis

from jobs.cards import ModelCard, announce
from jobs.settings import Settings
from jobs.telemetry.tracing import start_tracing
from jobs.videos.record import Artifact, Timings
from jobs.videos.store import VideoStore
from tests.collector import Collector, collecting
from tests.server.serving import serving
from worker.metrics import Meter


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def test_a_video_s_trace_goes_from_the_request_to_the_file(
    collector: Collector, settings: Settings, redis: Redis, store: VideoStore, text_card: ModelCard
) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    trace_id, client_span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with serving(settings.model_copy(update={"otlp_endpoint": collector.url})) as url:
        body = {"model": "tiny-text", "prompt": "x"}
        asked = {"traceparent": f"00-{trace_id}-{client_span}-01"}
        answer = httpx.post(f"{url}/v1/videos", json=body, headers=asked)
        httpx.get(f"{url}/livez")
    video_id = answer.json()["id"]
    meter = Meter(redis, torch.device("cpu"), start_tracing(collector.url, "framedit-worker"))
    record = store.start(video_id, "w1")
    assert record is not None
    store.complete(video_id, {"video": Artifact(num_bytes=1, sha256="0")}, Timings(), "w1")
    meter.completed(record, Timings(denoise_s=1.0, decode_s=0.5, encode_s=0.25))
    meter.close()

    spans = {name: span for name, (_, span) in collector.spans.items()}
    assert set(spans) == {"POST /v1/videos", "video", "queue", "denoise", "decode", "encode"}
    assert {span.trace_id.hex() for span in spans.values()} == {trace_id}
    assert collector.spans["POST /v1/videos"][0] == "framedit-server"
    assert collector.spans["video"][0] == "framedit-worker"
    assert spans["POST /v1/videos"].parent_span_id.hex() == client_span
    assert spans["video"].parent_span_id == spans["POST /v1/videos"].span_id
    for stage in ("queue", "denoise", "decode", "encode"):
        assert spans[stage].parent_span_id == spans["video"].span_id
    attributes = {a.key: a.value.string_value for a in spans["video"].attributes}
    assert attributes["framedit.video_id"] == video_id
    assert attributes["framedit.request_id"] == answer.headers["x-request-id"]
    seconds = (spans["denoise"].end_time_unix_nano - spans["denoise"].start_time_unix_nano) / 1e9
    assert seconds == pytest.approx(1.0, abs=1e-3)


def test_without_an_endpoint_tracing_is_neither_imported_nor_recorded(http: httpx.Client, store: VideoStore) -> None:
    answer = http.post("/v1/videos", json={"model": "tiny-text", "prompt": "x"}, headers={"traceparent": "00-1-2-01"})
    assert store.get(answer.json()["id"]).traceparent is None
    # redis-py looks at the SDK's metrics where the SDK is installed; what makes and sends traces is ours alone.
    code = (
        "import sys; from jobs.settings import Settings; from server.app import create_app\n"
        "create_app(Settings(redis_url='redis://127.0.0.1:1')); import worker.main\n"
        "foreign = ('opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(foreign)])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(Exception, match=r"is not installed: install framedit-server\[tracing\]"):
        start_tracing("http://127.0.0.1:4318", "framedit-server")
