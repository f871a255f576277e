"""One video in the logs, metrics and traces of a real server and its worker."""

import json
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.collector import collecting
from tests.e2e.conftest import serving
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_logs_metrics_and_traces_follow_a_video_from_request_to_file(checkpoints: Path, tmp_path: Path) -> None:
    env = {"FRAMEDIT_LOG_FORMAT": "json"}
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with collecting() as collector:
        with serving(tmp_path / "data", checkpoints, FRAMEDIT_OTLP_ENDPOINT=collector.url, **env) as served:
            headers = {"X-Request-Id": "watched-1", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
            body = {"model": "tiny", "class_label": "right"}
            video_id = served.http.post("/v1/videos", json=body, headers=headers).json()["id"]
            served.wait_until(video_id, "completed")

            def counted() -> dict[str, float]:
                families = text_string_to_metric_families(served.http.get("/metrics").text)
                return {sample.name: sample.value for family in families for sample in family.samples}

            # The worker publishes its counts with its next heartbeat.
            wait_for(lambda: counted().get("framedit_video_seconds_count") == 1, "the worker's metrics")
            found = counted()
            assert found["framedit_videos_total"] == 1
            assert found["framedit_batch_rows_count"] > 0
            assert found["framedit_denoise_step_seconds_count"] == found["framedit_batch_rows_count"]
            assert found["framedit_workers_alive"] == 1
            assert found["framedit_device_memory_bytes"] > 1e6
        spans = {name: span for name, (_, span) in collector.spans.items()}
    assert {"POST /v1/videos", "video", "queue", "denoise", "decode", "encode"} <= set(spans)
    assert {spans[name].trace_id.hex() for name in ("POST /v1/videos", "video", "encode")} == {trace_id}

    lines = [json.loads(line) for line in served.log.read_text().splitlines() if line.startswith("{")]
    about = [line for line in lines if line.get("request_id") == "watched-1"]
    assert {line["process"] for line in about} == {"server", "worker"}
    assert {line["process"] for line in about if line.get("video_id") == video_id} == {"server", "worker"}
