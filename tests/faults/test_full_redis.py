"""A Redis that reaches its memory limit while real workers make videos."""

from pathlib import Path

import httpx
import pytest
from redis.exceptions import OutOfMemoryError

from jobs.queue.rq_adapter import leased_jobs
from tests.faults.stand import KINDS, PATIENCE_SECONDS, Stand, standing
from tests.waiting import wait_for


def test_videos_in_progress_and_queued_complete_while_redis_is_full(tmp_path: Path) -> None:
    with standing(tmp_path, lease_seconds=4, is_forked=True) as stand:
        ids = stand.post(3 * len(KINDS))
        stand.wait_until_running(ids)
        stand.redis.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            stand.redis.set("other", 1)
        assert is_refused(stand)
        # A worker dies in a full Redis, too: its leases expire, and its videos are queued and made again.
        stand.workers[0].kill()
        assert stand.losses(ids) == []
        wait_for(lambda: not leased_jobs(stand.redis), "the end of all leases", PATIENCE_SECONDS)
        away = [line for line in stand.logged("Redis is not available") if "Timeout" not in line]  # late, not refused
        assert away + stand.logged("job dispatch failed") == []
        # With room again, new videos are accepted.
        stand.redis.config_set("maxmemory", 0)
        assert stand.losses(stand.post(len(KINDS))) == []


def is_refused(stand: Stand) -> bool:
    body = {"model": "tiny", "class_label": "right", **KINDS[0]}
    return wait_for(lambda: _post(stand, body) == 503, "the refusal of a new video", PATIENCE_SECONDS)


def _post(stand: Stand, body: dict[str, object]) -> int | None:
    try:
        return stand.http.post("/v1/videos", json=body).status_code
    except httpx.TransportError:
        return None
