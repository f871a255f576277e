"""References in S3, with `framedit serve`: written by the API, read by a worker in another process, and removed."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from jobs.storage.artifact_store import ArtifactStore
from tests.bucket import serving_bucket
from tests.e2e.conftest import Serve, serving
from tests.e2e.test_continuations import frames_of, make_picture
from tests.waiting import wait_for

LOCATION = "s3://videos/made"


@pytest.fixture
def served(tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with serving_bucket(monkeypatch), serving(tmp_path / "data", checkpoints, FRAMEDIT_ARTIFACTS=LOCATION) as running:
        # A new bucket is marked in the background: until then, uploads are answered 503.
        wait_for(lambda: running.http.get("/readyz").is_success, "the server is not ready")
        yield running


def has_reference(video_id: str) -> bool:
    return ArtifactStore(LOCATION).exists(video_id, "reference")


def post(served: Serve, path: str, body: dict[str, object]) -> str:
    answer = served.http.post(f"/v1/videos{path}", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_videos_start_from_references_in_a_bucket(served: Serve, tmp_path: Path) -> None:
    fields = {"model": "tiny", "class_label": "right", "seed": "7"}
    answer: httpx.Response = served.http.post("/v1/videos", data=fields, files={"input_reference": make_picture()})
    assert answer.status_code == 200, answer.text
    first = answer.json()["id"]
    start = frames_of(served, first, tmp_path)
    extended = post(served, "/extensions", {"video": {"id": first}, "num_frames": 2})
    edited = post(served, "/edits", {"video": {"id": first}, "class_label": "left"})
    longer = frames_of(served, extended, tmp_path)
    assert len(longer) == len(start) + 2
    assert np.abs(longer[:2].astype(int) - start[:2]).mean() < 8  # encoded twice
    assert len(frames_of(served, edited, tmp_path)) == len(start)
    for video_id in (first, extended, edited):
        assert has_reference(video_id)
        assert served.http.delete(f"/v1/videos/{video_id}").status_code == 200
        assert not has_reference(video_id)
    assert list(ArtifactStore(LOCATION).video_ids()) == []
